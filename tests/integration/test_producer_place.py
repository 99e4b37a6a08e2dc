"""Where a waiting job stands, why it waits and when it may begin; and lists of jobs. Mostly without a worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import AsyncProducer, InvalidRequest, Producer, Submission
from producer.job_list import ALL_TENANTS
from producer.jobs import JobState
from producer.queue_place import QueuePlace, WaitReason
from tests.running import simulated
from tests.waiting import eventually

LONG = {"max_tokens": 100_000, "ignore_eos": True}


@pytest.fixture
def fleet_producer(redis_url: str) -> Iterator[Producer]:
    """Whose jobs are listed; its model has no worker."""
    with Producer(redis_url) as connected:
        connected.declare_model("sim")
        connected.lists_jobs = True
        yield connected


def submitted(producer: Producer, count: int, **fields: Any) -> list[Submission]:  # noqa: ANN401 - the request's
    """So many jobs, each in a call of its own."""
    return [producer.submit(model="sim", prompt=f"job {n}", **fields) for n in range(count)]


def place(producer: Producer, job: Submission) -> QueuePlace | None:
    """Of this job."""
    return producer.queue_place(producer.status(job))


def positions(producer: Producer, jobs: list[Submission]) -> list[int | None]:
    """Of these jobs."""
    return [found.position if (found := place(producer, job)) else None for job in jobs]


@pytest.mark.parametrize("tenant", [None, "acme", "a|b c"])
def test_a_job_knows_its_position(fleet_producer: Producer, tenant: str | None) -> None:
    """In its lane's list and in a tenant's flow; what is cancelled is not before anybody any more."""
    jobs = submitted(fleet_producer, 20, tenant=tenant)
    assert positions(fleet_producer, jobs) == list(range(1, 21))
    fleet_producer.cancel(jobs[0])
    assert place(fleet_producer, jobs[0]) is None
    found = place(fleet_producer, jobs[7])
    assert found is not None
    assert (found.reason, found.estimated_start_seconds) == (WaitReason.NO_READY_WORKER, None)


def test_jobs_of_one_call_have_one_position(fleet_producer: Producer) -> None:
    """They came at one moment."""
    first = submitted(fleet_producer, 3)
    outcomes = fleet_producer.submit_many([{"model": "sim", "prompt": "x"}] * 50)
    last = submitted(fleet_producer, 1)
    together = [outcome.unwrap() for outcome in outcomes]
    assert positions(fleet_producer, first + together[:3] + last) == [1, 2, 3, 4, 4, 4, 54]


def test_more_urgent_lanes_and_other_tenants_go_before(fleet_producer: Producer) -> None:
    """A lane's position counts its own tenant; what is expected to begin before counts all."""
    submitted(fleet_producer, 5, priority="interactive")
    mine = submitted(fleet_producer, 3, tenant="mine")
    theirs = submitted(fleet_producer, 10, tenant="theirs")
    submitted(fleet_producer, 7, priority="batch")
    found = [place(fleet_producer, job) for job in (mine[0], mine[2], theirs[9])]
    assert [one.position for one in found if one] == [1, 3, 10]
    assert [one.jobs_before for one in found if one] == [5, 5 + 4, 5 + 12]


def test_a_running_fleet_says_why_a_job_waits(redis_url: str, tmp_path: Path) -> None:
    """Jobs before it, its tenant's limit, workers that are full; and none once it runs."""
    with (
        simulated(redis_url, tmp_path, seconds_per_token=0.002, max_num_seqs=8) as fleet,
        Producer(redis_url) as producer,
    ):
        eventually(lambda: any(worker.is_ready for worker in producer.workers()), what="the worker is known")
        for job in submitted(producer, 4, sampling={"max_tokens": 2, "ignore_eos": True}):
            producer.result(job, timeout_seconds=60)
        producer.set_tenant("held", max_running_jobs=1)
        held = submitted(producer, 2, tenant="held", sampling=LONG)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 1, what="one of the tenant runs")
        eventually(
            lambda: (now := place(producer, held[1])) and now.reason is WaitReason.TENANT_LIMIT, what="the other waits"
        )
        eventually(lambda: place(producer, held[0]) is None, what="the running one waits no more")
        assert producer.status(held[0]).attempt == 1
        many = submitted(producer, 30, sampling=LONG)
        eventually(
            lambda: (now := place(producer, many[-1])) and now.reason is WaitReason.JOBS_BEFORE, what="jobs go before"
        )
        eventually(
            lambda: (now := place(producer, many[-1])) and now.estimated_start_seconds is not None, what="an estimate"
        )
        waiting = [job for job in many if (found := place(producer, job)) and found.position]
        eventually(
            lambda: (now := place(producer, waiting[0])) and now.reason is WaitReason.WORKERS_BUSY,
            what="the first knows that it waits for a worker alone",
        )
        for job in [*held, *many]:
            producer.cancel(job)


def test_jobs_are_listed_by_tenant_and_state_in_pages(fleet_producer: Producer, redis_url: str) -> None:
    """The latest first; a page says where the next begins, whatever comes meanwhile."""
    mine = [job.job_id for job in submitted(fleet_producer, 25, tenant="mine")][::-1]
    nobodys = [job.job_id for job in submitted(fleet_producer, 3)][::-1]
    pages, after = [], None
    while not pages or after:
        page = fleet_producer.jobs("mine", limit=10, after=after)
        pages.append([known.job_id for known in page.jobs])
        after = page.after
        submitted(fleet_producer, 1, tenant="mine")
    assert pages == [mine[:10], mine[10:20], mine[20:]]
    assert [known.job_id for known in fleet_producer.jobs(None).jobs] == nobodys
    assert len(fleet_producer.jobs(ALL_TENANTS).jobs) == 31
    for job_id in mine[5:8]:
        fleet_producer.cancel(job_id)
    cancelled = fleet_producer.jobs("mine", state=JobState.CANCELLED, limit=2)
    assert [known.job_id for known in cancelled.jobs] == mine[5:7]
    rest = fleet_producer.jobs("mine", state=JobState.CANCELLED, limit=2, after=cancelled.after)
    assert ([known.job_id for known in rest.jobs], rest.after) == (mine[7:8], None)
    with Producer(redis_url) as unlisted:
        unlisted.submit(model="sim", prompt="x", tenant="quiet")
    assert fleet_producer.jobs("quiet").jobs == ()


def test_what_is_no_page_is_refused(fleet_producer: Producer) -> None:
    """A limit out of range, and a job that is in no list."""
    with pytest.raises(InvalidRequest, match="limit: 1 to 1,000"):
        fleet_producer.jobs(limit=0)
    with pytest.raises(InvalidRequest, match="no job 'none' is in this list"):
        fleet_producer.jobs(after="none")


async def test_event_loops_have_the_same(fleet_producer: Producer, redis_url: str) -> None:
    """Lists, places and workers."""
    jobs = submitted(fleet_producer, 3, tenant="mine")
    async with AsyncProducer(redis_url) as producer:
        page = await producer.jobs("mine", limit=2)
        assert page == fleet_producer.jobs("mine", limit=2)
        assert await producer.queue_place(page.jobs[0]) == place(fleet_producer, jobs[2])
        assert await producer.workers() == []
        producer.lists_jobs = True
        await producer.submit(model="sim", prompt="x", tenant="mine")
    assert len(fleet_producer.jobs("mine").jobs) == 4
