"""Fleets that integration tests share: one with the simulated engine, one with vLLM and the tiny model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import Producer
from tests.running import VLLM_OPTIONS, RunningFleet, simulated
from tests.waiting import free_port
from workers.embedded import EmbeddedServer


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
