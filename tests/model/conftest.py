"""The server that the model is checked against."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.waiting import free_port
from workers.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """At a server of its own that writes nothing to disk: a long run would write the same states millions of times."""
    folder: Path = tmp_path_factory.mktemp("model")
    with EmbeddedServer(folder, free_port()) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
        yield client
