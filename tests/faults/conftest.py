"""A server that a test may kill, and whose every write is on disk before it is acknowledged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import free_port
from workers.embedded import EmbeddedServer


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Not started yet; ``kill`` and ``start`` again keep port and data."""
    server = EmbeddedServer(tmp_path / "valkey", free_port(), append_fsync="always")
    yield server
    server.stop()
