"""What every tier of tests shares: a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.waiting import free_port
from workers.embedded import EmbeddedServer
from workers.models.tiny import make_tiny_model


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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
