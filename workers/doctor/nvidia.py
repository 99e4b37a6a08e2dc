"""What NVIDIA's driver says of this host's GPUs, by ``nvidia-smi``: no torch is needed, and none is loaded."""

import csv
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024**2
TIMEOUT_SECONDS: Final = 30.0
_GPU_FIELDS: Final = ("index", "uuid", "name", "driver_version", "memory.total", "memory.used", "compute_cap")
_PROCESS_FIELDS: Final = ("gpu_uuid", "pid", "process_name", "used_memory")


class DriverSilent(Exception):
    """``nvidia-smi`` is there, and failed; the message has its words."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: str
    uuid: str
    name: str
    driver: str
    total_bytes: int
    used_bytes: int
    compute_capability: tuple[int, int]
    """(0, 0) where the driver does not tell."""

    @property
    def free_bytes(self) -> int:
        """What nobody holds."""
        return self.total_bytes - self.used_bytes


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    gpu_uuid: str
    pid: str
    name: str
    used_bytes: int


def installed_gpus() -> list[Gpu] | None:
    """Every GPU of this host; None: it has no NVIDIA driver.

    Raises:
        DriverSilent: the driver does not answer.
    """
    rows = _query("gpu", _GPU_FIELDS)
    if rows is None:
        return None
    return [
        Gpu(index, uuid, name, driver, _mebibytes(total), _mebibytes(used), _capability(capability))
        for index, uuid, name, driver, total, used, capability in rows
    ]


def processes() -> list[GpuProcess]:
    """Those that hold memory, as far as this process may see them: in a container, only its own."""
    rows = _query("compute-apps", _PROCESS_FIELDS) or []
    return [GpuProcess(uuid, pid, name, _mebibytes(used)) for uuid, pid, name, used in rows]


def chosen(gpus: Sequence[Gpu], ids: Sequence[str]) -> list[Gpu]:
    """Those that ``ids`` name, by index or UUID."""
    return [gpu for gpu in gpus if gpu.index in ids or any(gpu.uuid.startswith(one) for one in ids if len(one) > 4)]  # noqa: PLR2004 - GPU-


def _query(what: str, fields: Sequence[str]) -> list[list[str]] | None:
    command = ["nvidia-smi", f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)  # noqa: S603
    except FileNotFoundError:
        return None
    except (OSError, subprocess.SubprocessError) as error:
        raise DriverSilent(f"nvidia-smi did not answer: {error}") from error
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split()) or f"exit code {done.returncode}"
        raise DriverSilent(f"nvidia-smi failed: {words}")
    return list(_rows(done.stdout, len(fields)))


def _rows(text: str, width: int) -> Iterator[list[str]]:
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == width:
            yield [cell.strip() for cell in row]


def _mebibytes(text: str) -> int:
    return int(text) * MIB if text.isdigit() else 0


def _capability(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
