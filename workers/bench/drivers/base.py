"""The seam: what a driver does. Each lives in a process of its own (:mod:`workers.bench.drivers.__main__`)."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import psutil

from workers.bench.load import Load
from workers.bench.records import PassRecord
from workers.bench.target import EngineTarget


class Driver(ABC):
    """One way to get jobs answered by the target's model.

    Args:
        target: model and engine arguments, the same for all drivers of a run.
        folder: the driver's own, for data and logs; removed after the run.
    """

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        self.target = target
        self.folder = folder

    @abstractmethod
    def start(self) -> None:
        """Return when a job would be served at once; nothing before is measured.

        Raises:
            BenchError: it cannot; the message says why.
        """

    @abstractmethod
    def run(self, load: Load) -> PassRecord:
        """Run one pass; return when every job has ended."""

    @abstractmethod
    def stop(self) -> None:
        """Leave no process behind; idempotent, safe after a start that failed."""

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far of each part, by name: here this process, which works itself, and what it started."""
        own = psutil.Process()
        return {"worker": cpu_seconds_of([own]), "engine": cpu_seconds_of(own.children(recursive=True))}


def cpu_seconds_of(processes: Iterable[psutil.Process]) -> float:
    """User and system time of these processes, without their children; one that has ended counts nothing."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def visible_gpu(target: EngineTarget) -> dict[str, str]:
    """The environment that shows a process the target's GPU alone; empty on a machine without one."""
    return {} if target.gpu == "none" else {"CUDA_VISIBLE_DEVICES": target.gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def environment(target: EngineTarget) -> dict[str, str]:
    """The environment of a driver's own processes."""
    return dict(os.environ) | visible_gpu(target)
