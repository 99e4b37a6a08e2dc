"""How every engine fails: to start, and by the death of its process."""

import asyncio
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contracts.asking import ENDLESS, answer, increments, request, streamed
from tests.contracts.conftest import SHARED_OPTIONS, VLLM_OPTIONS
from tests.contracts.engine_processes import engine_processes
from tests.waiting import eventually
from workers.engine.base import Engine, EngineConfig, EngineDead, EngineOptionsInvalid, EngineStartFailed
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEATH_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Kind:
    """An engine class and what it is started with."""

    engine: type[SimulatedEngine] | type[VllmEngine]
    model: str
    options: dict[str, Any]

    def made(self, *, model: str | None = None, **options: Any) -> Engine:  # noqa: ANN401 - whatever the option takes
        """A new engine, not started."""
        return self.engine(EngineConfig(model or self.model, "tiny", {**self.options, **options}))


@pytest.fixture(params=["simulated", pytest.param("vllm", marks=pytest.mark.vllm)])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of engine in turn."""
    if request.param == "simulated":
        return Kind(SimulatedEngine, "none", SHARED_OPTIONS)
    return vllm_kind(request)


def vllm_kind(request: pytest.FixtureRequest) -> Kind:
    """VLLM with the tiny model."""
    request.getfixturevalue("vllm_environment")
    return Kind(VllmEngine, str(request.getfixturevalue("tiny_model")), VLLM_OPTIONS)


@pytest.fixture
def model_without_weights(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder that looks like a model until it is loaded."""
    for file in tiny_model.glob("*.json"):
        shutil.copy(file, tmp_path)
    return tmp_path


async def start_failure(engine: Engine) -> str:
    """Why it did not start; afterwards it is closed."""
    with pytest.raises((EngineOptionsInvalid, EngineStartFailed)) as caught:
        await engine.start()
    await engine.close()
    assert "\n" not in str(caught.value)
    return f"{caught.typename}: {caught.value}"


async def test_an_unknown_option_is_refused_with_the_nearest_name(kind: Kind) -> None:
    """The settings are wrong, so a restart does not help."""
    assert (
        await start_failure(kind.made(max_num_seq=4))
    ) == "EngineOptionsInvalid: unknown engine option 'max_num_seq': did you mean 'max_num_seqs'?"


@pytest.mark.parametrize("options", [{"max_num_seqs": 0}, {"max_model_len": "long"}])
async def test_an_option_out_of_range_is_refused_by_name(kind: Kind, options: dict[str, Any]) -> None:
    """The message names the option, and no process is left."""
    before = engine_processes()
    failure = await start_failure(kind.made(**options))
    assert failure.startswith("EngineOptionsInvalid")
    assert next(iter(options)) in failure
    assert engine_processes() == before


@pytest.mark.vllm
async def test_a_missing_model_folder_is_named(request: pytest.FixtureRequest) -> None:
    """The setting to change is in the message."""
    failure = await start_failure(vllm_kind(request).made(model="/nowhere/model"))
    assert failure == "EngineStartFailed: the model folder '/nowhere/model' does not exist: change model"


@pytest.mark.vllm
async def test_a_model_name_that_the_hub_can_not_deliver_is_named_as_the_setting(
    request: pytest.FixtureRequest,
) -> None:
    """Without a network and without a cache there is no such model."""
    failure = await start_failure(vllm_kind(request).made(model="nobody/nothing"))
    assert failure.startswith("EngineStartFailed")
    assert "check model" in failure


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["model", "served_model_name"])
async def test_what_the_worker_sets_is_no_engine_option(request: pytest.FixtureRequest, name: str) -> None:
    """There is one place for each setting."""
    kind = vllm_kind(request)
    engine = VllmEngine(EngineConfig(kind.model, "tiny", {name: "other"}))
    assert f"engine option '{name}' is not set here" in await start_failure(engine)


@pytest.mark.vllm
async def test_a_start_that_fails_in_vllms_own_process_tells_its_cause(
    request: pytest.FixtureRequest, model_without_weights: Path
) -> None:
    """The cause comes from the process that failed, and no process is left."""
    before = engine_processes()
    failure = await start_failure(vllm_kind(request).made(model=str(model_without_weights)))
    assert failure.startswith("EngineStartFailed: Cannot find any model weights")
    assert "check model" in failure
    assert engine_processes() == before


async def test_a_simulated_start_fault_is_a_failed_start() -> None:
    """Nothing is started, and closing is fine."""
    engine = SimulatedEngine(EngineConfig("none", "tiny", {"start_fault": "fails"}))
    assert (await start_failure(engine)).startswith("EngineStartFailed")
    assert engine.core_pid is None


async def test_a_killed_process_is_the_death_of_every_running_and_later_call(kind: Kind) -> None:
    """Kill -9: streams end, health and new requests fail, closing works twice and leaves nothing."""
    before = engine_processes()
    engine = kind.made()
    await engine.start()
    core = min(engine_processes() - before)
    tasks = [asyncio.create_task(answer(engine, request(f"never {number}", **ENDLESS))) for number in range(12)]
    await anext(aiter(increments(engine, streamed(request("first", **ENDLESS)))))
    os.kill(core, signal.SIGKILL)
    async with asyncio.timeout(DEATH_SECONDS):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineDead] * len(tasks)
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await answer(engine, request("later"))
    await engine.close()
    await engine.close()
    await asyncio.to_thread(eventually, lambda: engine_processes() <= before, seconds=60, what="no process of it")


async def test_an_engine_that_was_never_started_can_be_closed(kind: Kind) -> None:
    """It is dead before and after."""
    engine = kind.made()
    with pytest.raises(EngineDead):
        await engine.check_health()
    await engine.close()
    with pytest.raises(EngineDead):
        await answer(engine, request("x"))


@pytest.mark.vllm
async def test_a_start_that_is_given_up_leaves_no_process(request: pytest.FixtureRequest) -> None:
    """Cancelling the start and closing ends what was already running."""
    before = engine_processes()
    engine = vllm_kind(request).made()
    task = asyncio.create_task(engine.start())
    await asyncio.to_thread(eventually, lambda: engine_processes() != before, seconds=60, what="a process")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.close()
    await asyncio.to_thread(eventually, lambda: engine_processes() <= before, seconds=60, what="no process of it")
