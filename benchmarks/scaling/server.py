"""A server of one's own, and what it says of its CPU time, its memory and its scripts."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from workers.embedded import EmbeddedServer
from workers.local.stack import free_port

POLL_SECONDS = 0.05
MICROSECONDS = 1e6
CALIBRATION_LOOKS = 200


@dataclass(frozen=True)
class Usage:
    """What the server has used until now, or between two moments."""

    main_thread_seconds: float
    """CPU time of the one thread that runs every command: the one that can be full."""
    process_seconds: float
    """CPU time of all threads; writing the append-only file to disk is the others'."""
    memory_bytes: float

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.main_thread_seconds - earlier.main_thread_seconds,
            self.process_seconds - earlier.process_seconds,
            self.memory_bytes - earlier.memory_bytes,
        )


@contextmanager
def own_server() -> Iterator[str]:
    """A fresh server's address."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), free_port(6379)) as server:
        yield server.url


def usage(client: redis.Redis) -> Usage:
    """As the server counts it."""
    cpu: Any = client.info("cpu")
    memory: Any = client.info("memory")
    return Usage(
        cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"],
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
        memory["used_memory"],
    )


class Meter:
    """CPU time of the server's main thread in what happens between two looks, without the looks themselves."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._look_seconds = 0.0
        began = self._look()
        for _ in range(CALIBRATION_LOOKS):
            ended = self._look()
        self._look_seconds = (ended - began) / CALIBRATION_LOOKS
        self.seconds = 0.0

    def _look(self) -> float:
        cpu: Any = self._client.info("cpu")
        return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what is spent inside the block."""
        before = self._look()
        yield
        self.seconds += self._look() - before - self._look_seconds

    def microseconds_per(self, count: int) -> float:
        """Of what was added, and begin anew."""
        seconds, self.seconds = self.seconds, 0.0
        return round(seconds * MICROSECONDS / count, 1)


def wait_for_background_work(client: redis.Redis) -> None:
    """Return when no child of the server writes its append-only file anew."""
    while True:
        state: Any = client.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state.get("aof_rewrite_scheduled"):
            return
        time.sleep(POLL_SECONDS)
