"""What is sent together, and what waits for room."""

from collections.abc import Sequence

import pytest

from producer import chunk
from producer.chunk import BACKLOG_JOBS, CHUNK_BYTES, CHUNK_JOBS, PULL_SECONDS, RICH_JOB, Backlog, Chunk, IndexedJob
from producer.contract import GenerationRequest
from producer.errors import QueueFull
from producer.submission import prepare


def job(index: int, model: str = "m", prompt: str = "x", tenant: str | None = None) -> IndexedJob:
    """The job of the request at this position."""
    return IndexedJob(index, prepare(GenerationRequest(model=model, prompt=prompt, tenant=tenant)))


def full(jobs: Sequence[IndexedJob], *, of_tenant: bool = False) -> list[tuple[IndexedJob, QueueFull]]:
    """These found the queue of their model full, or their tenant's part of it."""
    asked = [(each, each.prepared.request) for each in jobs]
    return [(each, QueueFull(asked.model, 1, 1, asked.tenant if of_tenant else None)) for each, asked in asked]


def indexes(jobs: list[IndexedJob]) -> list[int]:
    """Their positions."""
    return [each.index for each in jobs]


def test_a_chunk_takes_jobs_up_to_its_count() -> None:
    """Then it is time to send."""
    filled = Chunk(job(number) for number in range(CHUNK_JOBS - 1))

    assert filled.seconds_left > 0
    filled.add(job(CHUNK_JOBS))
    assert filled.seconds_left == 0


def test_jobs_that_keep_the_server_longer_fill_a_chunk_sooner() -> None:
    """Those with a tenant, a deadline, a prefix or an idempotency key."""
    rich = prepare(GenerationRequest(model="m", prompt="x", tenant="t"))
    begun = Chunk()
    count = 0
    while begun.seconds_left:
        begun.add(IndexedJob(count, rich))
        count += 1

    assert CHUNK_JOBS / RICH_JOB <= count < CHUNK_JOBS / RICH_JOB + 1


def test_a_chunk_takes_jobs_up_to_its_bytes_and_one_that_is_larger_alone() -> None:
    """Nothing that the contract lets through is too large to be sent."""
    heavy = Chunk([job(0, prompt="x" * (CHUNK_BYTES // 2))])
    assert heavy.seconds_left > 0
    heavy.add(job(1, prompt="x" * CHUNK_BYTES))
    assert heavy.seconds_left == 0


def test_a_chunk_does_not_wait_long_for_a_slow_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is sent."""
    now = 100.0
    monkeypatch.setattr(chunk, "monotonic", lambda: now)
    begun = Chunk()
    assert begun.seconds_left == pytest.approx(PULL_SECONDS)
    now += PULL_SECONDS
    assert begun.seconds_left == 0


def test_without_a_full_queue_nothing_is_held() -> None:
    """The usual case."""
    backlog = Backlog()
    backlog.settle([])

    assert not backlog.hold(job(1))
    assert backlog.due() == []


def test_a_full_queue_is_asked_with_one_job_and_with_twice_as_many_whenever_there_is_room() -> None:
    """In the order of the requests, and other models are none the wiser."""
    backlog = Backlog()
    jobs = [job(number) for number in range(10)]
    backlog.settle(full(jobs[3:]))
    assert backlog.hold(job(10))
    assert not backlog.hold(job(11, model="n"))

    sent = []
    while due := backlog.due():
        sent.append(indexes(due))
        backlog.settle([])

    assert sent == [[3], [4, 5], [6, 7, 8, 9], [10]]
    assert not backlog.hold(job(12))


def test_what_is_refused_again_goes_back_to_its_place_and_less_is_asked_next_time() -> None:
    """Never less than one job, or it would wait for ever."""
    backlog = Backlog()
    jobs = [job(number) for number in range(8)]
    backlog.settle(full(jobs))
    for refused_from in (1, 2, 1, 0):
        due = backlog.due()
        backlog.settle(full(due[refused_from:]))

    assert indexes(backlog.due()) == [4]


def test_one_chunk_never_has_more_of_the_backlog_than_fits() -> None:
    """What does not fit stays where it was."""
    backlog = Backlog()
    jobs = [job(number, model=f"model-{number}") for number in range(BACKLOG_JOBS + 5)]
    backlog.settle(full(jobs))

    first = backlog.due()
    backlog.settle([])

    assert indexes(first) == list(range(BACKLOG_JOBS))
    assert indexes(backlog.due()) == list(range(BACKLOG_JOBS, BACKLOG_JOBS + 5))


def test_a_tenant_at_its_limit_holds_up_nobody_elses_jobs() -> None:
    """Those of its model that come after it are sent at once, its own wait behind it."""
    backlog = Backlog()
    backlog.settle(full([job(0, tenant="t"), job(1, tenant="t")], of_tenant=True))

    assert backlog.hold(job(2, tenant="t"))
    assert not backlog.hold(job(3, tenant="u"))
    assert not backlog.hold(job(4))
    assert indexes(backlog.due()) == [0]
    backlog.settle([])
    assert indexes(backlog.due()) == [1, 2]


def test_what_waits_for_its_model_and_then_for_its_tenant_keeps_the_order_of_its_tenant() -> None:
    """It moves from behind the one limit to behind the other."""
    backlog = Backlog()
    backlog.settle(full([job(number, tenant="t") for number in range(3)]))
    backlog.settle(full(backlog.due(), of_tenant=True))
    assert backlog.hold(job(3, tenant="t"))
    due = backlog.due()
    assert sorted(indexes(due)) == [0, 1, 2]
    backlog.settle(full(due, of_tenant=True))

    asked = []
    while due := backlog.due():
        asked += indexes(due)
        backlog.settle([])
    assert asked == [0, 1, 2, 3]


def test_many_full_queues_are_asked_in_turn() -> None:
    """No tenant that has room waits behind others that have none."""
    backlog = Backlog()
    jobs = [job(number, tenant=f"tenant-{number}") for number in range(BACKLOG_JOBS + 1)]
    backlog.settle(full(jobs, of_tenant=True))

    first = backlog.due()
    backlog.settle(full(first, of_tenant=True))

    assert backlog.due()[0].index == BACKLOG_JOBS
