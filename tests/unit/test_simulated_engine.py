"""The faults of the simulated engine, and its slots."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from producer.contract import FailureCode, GenerationRequest, SamplingOptions
from workers.engine.base import (
    ChoiceIncrement,
    EngineConfig,
    EngineDead,
    EngineOptionsInvalid,
    EngineOverloaded,
    EngineRequest,
    GenerationFailed,
    RequestRejected,
)
from workers.engine.simulated import SimulatedEngine


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[SimulatedEngine]:
    """Two slots, no time per token."""
    engine = SimulatedEngine(EngineConfig("none", "m", {"max_num_seqs": 2, "seconds_per_token": 0.0}))
    await engine.start()
    yield engine
    await engine.close()


async def answer(
    engine: SimulatedEngine, attempt_id: str, *, fault: str = "", prompt: str = "words"
) -> ChoiceIncrement:
    """The one choice of a new attempt, with a fault or without."""
    request = GenerationRequest(
        model="m",
        prompt=prompt,
        sampling=SamplingOptions(max_tokens=3, ignore_eos=True),
        metadata={"simulate": fault} if fault else {},
    )
    (increment,) = [increment async for increment in engine.generate(EngineRequest(attempt_id, request))]
    (choice,) = increment.choices
    return choice


def started(engine: SimulatedEngine, attempt_id: str, fault: str) -> asyncio.Task[ChoiceIncrement]:
    """An attempt that runs beside the test."""
    return asyncio.create_task(answer(engine, attempt_id, fault=fault))


async def test_slots_are_given_in_order_of_arrival(engine: SimulatedEngine) -> None:
    """What waits comes to its turn when what hangs is aborted, first come first served."""
    hanging = [started(engine, f"hangs-{number}", "hangs") for number in range(2)]
    finished: list[int] = []

    async def wait_in_line(number: int) -> None:
        await answer(engine, f"waits-{number}")
        finished.append(number)

    waiting = [asyncio.create_task(wait_in_line(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert finished == []
    await engine.abort("hangs-0")
    await asyncio.gather(*waiting)
    assert finished == [0, 1, 2, 3, 4]
    assert not hanging[1].done()


async def test_what_is_cancelled_in_the_line_leaves_it(engine: SimulatedEngine) -> None:
    """The slot goes to the next, not to who has left."""
    hanging = [started(engine, f"hangs-{number}", "hangs") for number in range(2)]
    gone, next_one = started(engine, "gone", ""), started(engine, "next", "")
    await asyncio.sleep(0)
    gone.cancel()
    await engine.abort("hangs-0")
    assert (await next_one).token_count == 3
    assert gone.cancelled()
    assert not hanging[1].done()


async def test_an_attempt_aborted_in_the_line_ends_without_a_token(engine: SimulatedEngine) -> None:
    """It never had a slot, and takes none with it."""
    for number in range(2):
        started(engine, f"hangs-{number}", "hangs")
    waiting = started(engine, "waits", "")
    await asyncio.sleep(0)
    await engine.abort("waits")
    assert (await waiting) == ChoiceIncrement(0, "", 0, "abort")
    await engine.abort("hangs-0")
    assert (await answer(engine, "after")).token_count == 3


async def test_overloaded_is_raised_every_time(engine: SimulatedEngine) -> None:
    """No attempt gets in."""
    for number in range(2):
        with pytest.raises(EngineOverloaded):
            await answer(engine, str(number), fault="overloaded")


async def test_overloaded_once_lets_the_second_attempt_of_a_prompt_in(engine: SimulatedEngine) -> None:
    """Each prompt is refused once."""
    for prompt in ("one", "two"):
        with pytest.raises(EngineOverloaded):
            await answer(engine, f"{prompt}-1", fault="overloaded_once", prompt=prompt)
        assert (await answer(engine, f"{prompt}-2", fault="overloaded_once", prompt=prompt)).token_count == 3


async def test_fails_breaks_this_request_alone(engine: SimulatedEngine) -> None:
    """The engine lives."""
    with pytest.raises(GenerationFailed):
        await answer(engine, "broken", fault="fails")
    await engine.check_health()
    assert (await answer(engine, "fine")).token_count == 3


async def test_kills_engine_kills_its_process_and_everything_that_runs(engine: SimulatedEngine) -> None:
    """The batch-mate dies with the one that did it."""
    core_pid = engine.core_pid
    assert core_pid is not None
    mate, killer = started(engine, "mate", "hangs"), started(engine, "killer", "kills_engine")
    outcomes = await asyncio.gather(mate, killer, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineDead, EngineDead]
    assert not psutil.pid_exists(core_pid)
    assert engine.core_pid is None
    with pytest.raises(EngineDead):
        await engine.check_health()


async def test_slow_adds_seconds_to_the_usual_time(engine: SimulatedEngine) -> None:
    """And ends as usual."""
    began = time.monotonic()
    assert (await answer(engine, "slow", fault="slow:0.2")).finish_reason == "length"
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("fault", ["hang", "slow", "slow:soon"])
async def test_an_unknown_fault_is_an_invalid_request(engine: SimulatedEngine, fault: str) -> None:
    """A typo in a test must not pass for a job without a fault."""
    with pytest.raises(RequestRejected) as caught:
        await answer(engine, "typo", fault=fault)
    assert caught.value.code is FailureCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_seqs": 0},
        {"max_model_len": "many"},
        {"seconds_per_token": -1},
        {"start_seconds": "soon"},
        {"start_fault": "explodes"},
        {"gpu_memory_utilization": 0.9},
    ],
)
async def test_options_out_of_range_are_refused_at_the_start(options: dict[str, Any]) -> None:
    """Not when the engine is made: making one does nothing."""
    engine = SimulatedEngine(EngineConfig("none", "m", options))
    with pytest.raises(EngineOptionsInvalid, match=next(iter(options))):
        await engine.start()
    await engine.close()


async def test_the_process_ends_with_the_engine(engine: SimulatedEngine) -> None:
    """Closing leaves nothing behind."""
    core_pid = engine.core_pid
    assert core_pid is not None
    assert psutil.pid_exists(core_pid)
    await engine.close()
    assert not psutil.pid_exists(core_pid)
