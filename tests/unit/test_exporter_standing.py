"""What the exporter works out of what it has found."""

from dataclasses import replace

import pytest

from producer.contract import Priority
from producer.drain_rate import DrainRate
from producer.presence import Phase, WorkerPresence
from producer.queue_counts import LaneCounts, QueueCounts
from producer.queue_place import WaitReason
from workers.exporter.standing import LANES, LaneSample, ModelStanding

NOTHING = LaneSample(None, may_go=False)


def standing(*, waiting: dict[Priority, int] | None = None, leased: int = 0, suspect: int = 0) -> ModelStanding:
    """A model with so many jobs; those that wait are of 100 tokens each, and may go."""
    waits = waiting or {}
    lanes = tuple(LaneCounts(lane, waits.get(lane, 0)) for lane in LANES)
    counts = QueueCounts("m", sum(waits.values()), leased, 7, suspect, 0, None, lanes)
    samples = [LaneSample(100.0, may_go=True) if waits.get(lane) else NOTHING for lane in LANES]
    return ModelStanding(counts, samples, 0, 0, 0, None, [])


def worker(*, lanes: str = "all", running_jobs: int = 0, is_ready: bool = True) -> WorkerPresence:
    """Of this model."""
    phase = Phase.READY if is_ready else Phase.LOADING
    return WorkerPresence("w@h", "m", phase, is_ready, 0.0, 1, "simulated", "1", lanes=lanes, running_jobs=running_jobs)


def test_a_sample_is_worth_its_prompts_and_most_output() -> None:
    """Bytes of prompts at four to the token; nothing sampled is not known."""
    found = {"sampled": 4, "prompt_bytes": 400, "prompt_tokens": 60, "output_tokens": 240, "may_go": True}
    assert LaneSample.of(found) == LaneSample(100.0, may_go=True)
    assert LaneSample.of(dict.fromkeys(found, 0)) == NOTHING


def test_the_backlog_is_all_that_is_unfinished_but_not_what_is_for_later() -> None:
    """Each lane by its own sample; claimed jobs and suspects by the mean of those that wait."""
    one = standing(waiting={Priority.NORMAL: 3, Priority.BATCH: 1}, leased=4, suspect=2)
    one = replace(one, samples=[NOTHING, LaneSample(100.0, may_go=True), LaneSample(500.0, may_go=True), NOTHING])
    assert one.unfinished == 10
    assert one.backlog_tokens == 300 + 500 + 6 * 200


def test_claimed_jobs_alone_are_as_large_as_those_that_ended_last() -> None:
    """512 tokens before any has."""
    one = standing(leased=3)
    assert one.backlog_tokens == 3 * 512
    assert replace(one, rate=DrainRate(2.0, 300.0)).backlog_tokens == 3 * 150


def test_the_backlog_in_seconds_is_known_with_a_rate_or_without_work() -> None:
    """Not a guess in between: a fleet that has just started does not look endless, nor done."""
    assert standing().backlog_seconds == 0.0
    one = standing(waiting={Priority.BATCH: 50})
    assert one.backlog_seconds is None
    assert replace(one, rate=DrainRate(5.0, 1000.0)).backlog_seconds == 5.0


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], WaitReason.NO_READY_WORKER),
        ([worker(is_ready=False)], WaitReason.NO_READY_WORKER),
        ([worker(lanes="interactive")], WaitReason.NO_READY_WORKER),
        ([worker(lanes="others"), worker(running_jobs=3)], WaitReason.STARTING),
        ([worker(running_jobs=3)], WaitReason.WORKERS_BUSY),
    ],
)
def test_the_reason_why_a_batch_job_waits(workers: list[WorkerPresence], expected: WaitReason) -> None:
    """By who is there for its lane."""
    one = replace(standing(waiting={Priority.BATCH: 1}), workers=workers)
    assert one.wait_reason is expected


def test_work_that_only_tenants_limits_hold_back_says_so() -> None:
    """And nothing waits for a reason where nothing waits."""
    one = replace(standing(waiting={Priority.BATCH: 1}), workers=[worker()])
    assert replace(one, samples=[LaneSample(100.0, may_go=False)] * 4).wait_reason is WaitReason.TENANT_LIMIT
    assert replace(standing(leased=5), workers=[worker(running_jobs=5)]).wait_reason is None
