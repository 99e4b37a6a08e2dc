"""What every tier of tests shares: a real server, the tiny model, and running fleets with either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import Producer
from tests.finishing import Results, celery_results
from tests.running import VLLM_OPTIONS, RunningFleet, simulated
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


@pytest.fixture
def results(redis_url: str) -> Iterator[Results]:
    """What a worker writes to, on the session's server."""
    with celery_results(redis_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def own_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the module's own, for what takes seconds to start and is shared by its tests."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), free_port()) as server:
        yield server.url


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the module's own."""
    return tmp_path_factory.mktemp("module")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def simulated_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A worker with the simulated engine, on a server of its own."""
    folder = tmp_path_factory.mktemp("simulated")
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        simulated(server.url, folder, seconds_per_token=0.002) as fleet,
    ):
        yield fleet


@pytest.fixture(scope="session")
def vllm_fleet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[RunningFleet]:
    """A worker with the real vLLM engine and the tiny model, on a server of its own; it takes 20 to 40 s to start."""
    folder = tmp_path_factory.mktemp("vllm")
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        RunningFleet(server.url, folder, str(tiny_model), options) as fleet,
    ):
        yield fleet


@pytest.fixture(params=["simulated", pytest.param("vllm", marks=pytest.mark.vllm)])
def fleet(request: pytest.FixtureRequest) -> RunningFleet:
    """Each test that takes it runs on both engines."""
    running: RunningFleet = request.getfixturevalue(f"{request.param}_fleet")
    return running


@pytest.fixture
def producer(fleet: RunningFleet) -> Iterator[Producer]:
    """A producer for ``fleet``."""
    with fleet.producer() as connected:
        yield connected
