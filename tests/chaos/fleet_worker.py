"""One ``fleet worker`` of a stand: its supervisor, its worker process, that process's engine core, and its proxy."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.chaos.proxy import FaultyProxy
from tests.contracts.engine_processes import engine_processes, has_ended
from tests.running import VLLM_OPTIONS, RunningFleet

SIMULATED: Final[Mapping[str, Any]] = {
    "engine.kind": "simulated",
    "worker.gpus": "none",
    "engine.options.seconds_per_token": 0.02,
    "engine.options.max_num_seqs": 8,
}
VLLM: Final[Mapping[str, Any]] = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()} | {
    "engine.options.max_num_seqs": 8
}
BACK_AT_ONCE: Final[Mapping[str, Any]] = {
    "worker.restart_backoff_initial_seconds": 0.1,
    "worker.restart_backoff_max_seconds": 0.1,
    "worker.max_failed_starts": 1000,
    "worker.drain_timeout_seconds": 5.0,
    "worker.max_deliveries": 1000,
}
"""Scenarios kill far more often than a machine fails; what is killed that often is no reason to give a job up."""


@dataclass(frozen=True, slots=True)
class WorkerOrders:
    """How to start one."""

    redis_port: int
    folder: Path
    model: str
    settings: Mapping[str, Any]
    environ: Mapping[str, str]
    has_proxy: bool


class FleetWorker:
    """See the module. ``start`` returns at once."""

    def __init__(self, index: int, orders: WorkerOrders) -> None:
        self.index = index
        self.proxy = FaultyProxy(orders.redis_port).start() if orders.has_proxy else None
        port = self.proxy.port if self.proxy else orders.redis_port
        folder = orders.folder / f"worker-{index}"
        folder.mkdir()
        self._fleet = RunningFleet(
            f"redis://127.0.0.1:{port}/0", folder, orders.model, options=orders.settings, environ=orders.environ
        )

    @property
    def node(self) -> str:
        """Celery's name of the worker; it keeps it over restarts."""
        slug = "".join(character if character.isalnum() else "-" for character in self._fleet.served)
        return f"{slug}-{self._fleet.port}@{socket.gethostname()}"

    def start(self) -> None:
        """Start the supervisor."""
        self._fleet.start()

    def look_after(self) -> None:
        """The supervisor restarts what dies."""

    @property
    def supervisor(self) -> psutil.Process:
        """The supervisor's process."""
        if self._fleet.process is None:
            raise ProcessLookupError(f"worker {self.index} was not started")
        return psutil.Process(self._fleet.process.pid)

    def process(self) -> psutil.Process | None:
        """The worker process, while one lives."""
        if self._fleet.process is None or self._fleet.process.poll() is not None:
            return None
        return next(iter(self._fleet.worker_processes()), None)

    def core(self) -> psutil.Process | None:
        """The process of its engine, while it lives."""
        worker = self.process()
        started = sorted(engine_processes(worker.pid)) if worker is not None else []
        return psutil.Process(started[0]) if started else None

    def restart_supervisor(self) -> None:
        """After its death: start another one, at the same ports."""
        if self._fleet.process is not None:
            self._fleet.process.wait()
        self._fleet.start()

    def stop(self) -> int:
        """SIGTERM to the supervisor; its exit code."""
        try:
            return self._fleet.stop()
        finally:
            if self.proxy is not None:
                self.proxy.close()


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended."""
    return has_ended(process) or not process.is_running()
