"""GPU memory on ``/metrics``, read from the driver at each scrape."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pynvml
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class GpuMemoryCollector(Collector):
    """Used and total memory of this worker's GPUs, by the ids that ``CUDA_VISIBLE_DEVICES`` names."""

    def __init__(self, gpus: Sequence[str]) -> None:
        pynvml.nvmlInit()
        self._handles = {gpu: _handle(gpu) for gpu in gpus}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample per GPU; a GPU that the driver no longer answers for is left out and logged."""
        used = GaugeMetricFamily("fleet_gpu_memory_used_bytes", "GPU memory in use, all processes.", labels=["gpu"])
        total = GaugeMetricFamily("fleet_gpu_memory_total_bytes", "GPU memory.", labels=["gpu"])
        for gpu, handle in self._handles.items():
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            except pynvml.NVMLError as error:
                log.warning("GPU %s: %s", gpu, error, extra={"action": "gpu_unreadable", "gpu": gpu})
                continue
            used.add_metric([gpu], memory.used)
            total.add_metric([gpu], memory.total)
        yield used
        yield total


def _handle(gpu: str) -> object:
    by_index = gpu.isdigit()
    return pynvml.nvmlDeviceGetHandleByIndex(int(gpu)) if by_index else pynvml.nvmlDeviceGetHandleByUUID(gpu)


def gpu_memory_bytes(gpu: str) -> int | None:
    """Memory of one GPU by the id that ``CUDA_VISIBLE_DEVICES`` gives; None where the driver does not tell."""
    found = _told(gpu, pynvml.nvmlDeviceGetMemoryInfo)
    return None if found is None else int(found.total)


def gpu_name(gpu: str) -> str | None:
    """Its product name; None where the driver does not tell."""
    found = _told(gpu, pynvml.nvmlDeviceGetName)
    return None if found is None else str(found)


def _told(gpu: str, question: Callable[[object], Any]) -> Any:  # noqa: ANN401 - NVML's own structures
    try:
        pynvml.nvmlInit()
        return question(_handle(gpu))
    except pynvml.NVMLError as error:
        log.warning("GPU %s: %s", gpu, error, extra={"action": "gpu_unreadable", "gpu": gpu})
        return None


def register_gpu_memory(gpus: Sequence[str]) -> None:
    """Add the GPUs to ``/metrics``; a machine whose driver cannot be asked goes without, and says so."""
    try:
        REGISTRY.register(GpuMemoryCollector(gpus))
    except pynvml.NVMLError as error:
        log.warning("no GPU memory in the metrics: %s", error, extra={"action": "gpu_unreadable"})
