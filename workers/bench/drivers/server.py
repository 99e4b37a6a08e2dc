"""The Redis that drivers with a queue use: a real Valkey of their own, as ``fleet up`` starts it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from redis import Redis

from workers.bench.drivers.base import Driver, cpu_seconds_of, environment
from workers.bench.drivers.child import Child
from workers.bench.drivers.event_listener import LISTENING
from workers.bench.target import EngineTarget
from workers.embedded import EmbeddedServer
from workers.local.stack import free_port


class QueueDriver(Driver):
    """A driver whose jobs wait in Redis: this process is the producer, others are the workers."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self.server = EmbeddedServer(folder / "valkey", free_port(0))
        command = [sys.executable, "-m", "workers.bench.drivers.event_listener", self.server.url]
        self._listener = Child(command, folder / "listener.log", environment(target))

    def start_server(self, *, with_listener: bool) -> None:
        """Start it; ``with_listener`` somebody takes Celery's events from it, as Flower would."""
        self.server.start()
        if with_listener:
            self._listener.start()
            with Redis.from_url(self.server.url) as client:
                self._listener.wait_until(lambda: bool(client.exists(LISTENING)))

    def stop_server(self) -> None:
        """Stop it, and who listens; idempotent."""
        self._listener.stop()
        self.server.stop()

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live now, without their engines."""
        return []

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, no worker takes anything; to be entered while they hold nothing."""
        workers = self.workers()
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for worker in workers:
                worker.resume()

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far: of this producer, the server, the workers, and their engines' processes."""
        workers = self.workers()
        engines = {child for worker in workers for child in worker.children(recursive=True)}
        return {
            "producer": cpu_seconds_of([psutil.Process()]),
            "server": server_cpu_seconds(self.server.url),
            "worker": cpu_seconds_of(workers),
            "engine": cpu_seconds_of(engines),
        }


def server_cpu_seconds(url: str) -> float:
    """CPU time of the server so far, as it says itself: to the microsecond, where the kernel's table has hundredths."""
    with Redis.from_url(url) as client:
        used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
