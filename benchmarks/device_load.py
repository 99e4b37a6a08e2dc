"""How busy the device was meanwhile: the GPU by NVML where there is one, and the machine's cores."""

import os
import platform
import statistics
import threading
import time
from contextlib import suppress
from typing import Any, Final, Self

import psutil

SAMPLE_SECONDS: Final = 0.2


def hardware() -> str:
    """The first GPU, or the CPU."""
    gpu = _gpu()
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return f"{gpu.name}, driver {gpu.driver}, {cores}" if gpu else f"{platform.machine()}, {cores}, no GPU"


def device_memory_bytes() -> int | None:
    """Memory of the first GPU; None where there is none."""
    gpu = _gpu()
    return gpu.total_bytes if gpu else None


class Gpu:
    """The first GPU, through NVML."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        self.total_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def busy_percent(self) -> float:
        """Share of the last moments in which a kernel ran."""
        return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)

    def used_bytes(self) -> int:
        """Memory in use, by whomever."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)


def _gpu() -> Gpu | None:
    import pynvml

    with suppress(pynvml.NVMLError):
        return Gpu()
    return None


class DeviceLoad:
    """Samples between two moments; a context manager that ends when they are over."""

    def __init__(self, start_at: float, seconds: float) -> None:
        self._start_at, self._end_at = start_at, start_at + seconds
        self._gpu = _gpu()
        self._busy_percents: list[float] = []
        self._cpu_percent = 0.0
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _sample(self) -> None:
        time.sleep(max(0.0, self._start_at - time.monotonic()))
        psutil.cpu_percent(None)
        while time.monotonic() < self._end_at:
            time.sleep(SAMPLE_SECONDS)
            if self._gpu:
                self._busy_percents.append(self._gpu.busy_percent())
        self._cpu_percent = psutil.cpu_percent(None)

    def seen(self) -> dict[str, Any]:
        """Means over the time."""
        seen: dict[str, Any] = {"machine_cpu_percent": round(self._cpu_percent)}
        if self._gpu:
            seen["gpu_busy_percent"] = round(statistics.fmean(self._busy_percents))
            seen["gpu_memory_used_gib"] = round(self._gpu.used_bytes() / 1024**3, 1)
        return seen
