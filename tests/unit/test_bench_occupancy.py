"""Occupancy and refill gaps, from spans made by hand; and the simulated engine's record of its slots."""

import asyncio
from pathlib import Path

import pytest

from producer.contract import GenerationRequest, SamplingOptions
from workers.bench.occupancy import (
    SlotSpan,
    SteadyWindow,
    occupancy,
    read_spans,
    refill_gaps_seconds,
    steady_window,
)
from workers.bench.overhead import rates_of, slot_metrics
from workers.engine.base import EngineConfig, EngineOptionsInvalid, EngineRequest
from workers.engine.simulated import SimulatedEngine

TWO_SLOTS = [SlotSpan(0, 4), SlotSpan(0, 6), SlotSpan(5, 9), SlotSpan(6, 10), SlotSpan(10, 12)]
"""Two slots, the first empty for a second at 4, and again at 9."""


def test_the_steady_window_leaves_out_the_first_wave_and_the_end() -> None:
    """It begins when as many jobs have ended as there are slots, and ends when nobody waits any more."""
    assert steady_window(TWO_SLOTS, 2) == SteadyWindow(6, 10)


def test_too_few_jobs_have_no_steady_window() -> None:
    """No more than the slots, or nobody left to wait when the first wave is over."""
    for spans in (TWO_SLOTS[:2], [SlotSpan(0, 9), SlotSpan(0, 9), SlotSpan(0, 9)]):
        with pytest.raises(ValueError, match="too few"):
            steady_window(spans, 2)


def test_occupancy_is_slot_time_in_use_over_slot_time() -> None:
    """Spans count with what lies in the window."""
    assert occupancy(TWO_SLOTS, 2, SteadyWindow(6, 10)) == pytest.approx(7 / 8)
    assert occupancy([SlotSpan(0, 10), SlotSpan(0, 10)], 2, SteadyWindow(2, 8)) == 1.0


def test_a_refill_gap_is_how_long_a_freed_slot_stayed_empty() -> None:
    """Paired in order, and only for slots that were freed in the window."""
    assert refill_gaps_seconds(TWO_SLOTS, 2, SteadyWindow(0, 10)) == [1, 0, 1]
    assert refill_gaps_seconds(TWO_SLOTS, 2, SteadyWindow(6, 10)) == [0, 1]


def test_slot_metrics_name_their_units() -> None:
    """Percent, jobs per second and milliseconds."""
    figures = slot_metrics(TWO_SLOTS, 2)
    assert figures["occupancy_percent"] == pytest.approx(87.5)
    assert figures["jobs_per_second"] == pytest.approx(3 / 4)
    assert (figures["refill_ms_min"], figures["refill_ms_max"]) == (0, 1000)


def test_rates_are_whole_numbers_with_commas() -> None:
    """An empty text leaves that part out."""
    assert rates_of("100, 640") == [100, 640]
    assert rates_of("") == []
    with pytest.raises(ValueError, match="100,x"):
        rates_of("100,x")


async def test_the_simulated_engine_writes_down_who_had_a_slot_when(tmp_path: Path) -> None:
    """One slot and two jobs: the second has it when the first has left, and a job that never had it is not there."""
    log = tmp_path / "slots"
    options = {"max_num_seqs": 1, "seconds_per_token": 0.02, "slot_log": str(log)}
    engine = SimulatedEngine(EngineConfig("none", "m", options))
    await engine.start()

    async def run(name: str) -> None:
        request = GenerationRequest(model="m", prompt=name, sampling=SamplingOptions(max_tokens=2, ignore_eos=True))
        async for _ in engine.generate(EngineRequest(name, request)):
            pass

    first, second, third = (asyncio.create_task(run(name)) for name in ("one", "two", "three"))
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(first, second)
    await engine.close()
    earlier, later = read_spans(log)
    assert earlier.left_at - earlier.given_at >= 0.04
    assert earlier.given_at < earlier.left_at <= later.given_at < later.left_at
    assert read_spans(log, offset_bytes=len(log.read_bytes().splitlines(keepends=True)[0])) == [later]


async def test_a_slot_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Before anything runs."""
    engine = SimulatedEngine(EngineConfig("none", "m", {"slot_log": str(tmp_path / "nowhere" / "slots")}))
    with pytest.raises(EngineOptionsInvalid, match="slot_log"):
        await engine.start()
