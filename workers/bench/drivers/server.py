"""The Redis that drivers with a queue use: a real Valkey of their own, as ``fleet up`` starts it."""

from pathlib import Path

import psutil

from workers.bench.drivers.base import Driver, cpu_seconds_of
from workers.bench.target import EngineTarget
from workers.embedded import EmbeddedServer
from workers.local.stack import free_port


class QueueDriver(Driver):
    """A driver whose jobs wait in Redis: this process is the producer, others are the workers."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self.server = EmbeddedServer(folder / "valkey", free_port(0))

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live now, without their engines."""
        return []

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far: of this producer, the server, the workers, and their engines' processes."""
        workers = self.workers()
        engines = {child for worker in workers for child in worker.children(recursive=True)}
        return {
            "producer": cpu_seconds_of([psutil.Process()]),
            "server": cpu_seconds_of([psutil.Process(self.server.pid)]),
            "worker": cpu_seconds_of(workers),
            "engine": cpu_seconds_of(engines),
        }
