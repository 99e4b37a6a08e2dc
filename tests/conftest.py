"""What every tier of tests shares: a real server, free ports, and waiting on a condition with a deadline."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from workers.embedded import EmbeddedServer


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], object], *, seconds: float = 30.0, what: str = "the condition") -> None:
    """Wait until ``condition()`` is true; fail with ``what`` when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real Valkey server, one for the whole session."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with EmbeddedServer(folder, free_port()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> str:
    """The session's server, emptied for this test."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url
