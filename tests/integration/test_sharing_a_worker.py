"""What a running worker does for lanes, tenants and large jobs that compete for it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import Priority, Producer
from producer.jobs import JobState, Submission
from tests.running import RunningFleet
from tests.waiting import eventually
from workers.transport.drain_policy import LANE_TURNS

ENDLESS = {"simulate": "hangs"}
SLOTS = 8


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., RunningFleet]]:
    """Starts fleets with the simulated engine, told by engine options, and stops them."""
    numbers = itertools.count()
    fleets: list[RunningFleet] = []

    def start_one(**options: object) -> RunningFleet:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        settings: dict[str, Any] = {
            "engine.kind": "simulated",
            "worker.gpus": "none",
            "worker.drain_timeout_seconds": 0,
        }
        settings |= {f"engine.options.{name}": value for name, value in options.items()}
        fleets.append(RunningFleet(redis_url, folder, options=settings))
        return fleets[-1].__enter__()

    yield start_one
    for fleet in fleets:
        fleet.stop()


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """Submits to it."""
    with Producer(redis_url) as producer:
        yield producer


def submitted(producer: Producer, count: int, **fields: Any) -> list[Submission]:  # noqa: ANN401 - pydantic checks them
    """So many jobs."""
    return [producer.submit(model="sim", prompt=f"job {number}", **fields) for number in range(count)]


def began(producer: Producer, job: Submission) -> float:
    """When a worker took it, which is by the clock that jobs are enqueued by: both are on this machine."""
    started_at = producer.status(job).started_at
    assert started_at is not None
    return started_at


def running(producer: Producer, jobs: list[Submission]) -> list[Submission]:
    """Those that a worker has begun."""
    return [job for job in jobs if producer.status(job).state is JobState.RUNNING]


def test_an_interactive_job_is_answered_while_batch_jobs_hold_every_other_slot(
    start: Callable[..., RunningFleet], producer: Producer
) -> None:
    """There are slots that only it may take; and batch jobs go on when theirs are free again."""
    start(max_num_seqs=SLOTS)
    batch = submitted(producer, 2 * SLOTS, priority="batch", metadata=ENDLESS)
    eventually(lambda: len(running(producer, batch)) > SLOTS, what="all of the batch's slots are taken")
    for _ in range(3):
        answer = producer.submit(model="sim", prompt="now", priority="interactive", sampling={"max_tokens": 2})
        assert producer.result(answer, timeout_seconds=60).text
    first = running(producer, batch)
    for job in first:
        producer.cancel(job)
    rest = [job for job in batch if job not in first]
    eventually(lambda: running(producer, rest) == rest, what="the rest of the batch has the slots")


def test_an_engine_of_their_own_answers_interactive_jobs(redis_url: str, tmp_path: Path, producer: Producer) -> None:
    """Whatever fills the other one; each takes what it is for, and nothing else."""
    options = {
        "engine.kind": "simulated",
        "worker.gpus": "none",
        "worker.engines_per_gpu": 2,
        "worker.interactive_engines": 1,
        "worker.drain_timeout_seconds": 0,
        "engine.options.max_num_seqs": SLOTS,
    }
    with RunningFleet(redis_url, tmp_path, options=options, workers=2):
        eventually(lambda: len(producer.workers("sim")) == 2, what="both are known")
        names = {worker.lanes: worker.worker for worker in producer.workers("sim")}
        assert set(names) == {"interactive", "others"}
        batch = submitted(producer, 2 * SLOTS, priority="batch", metadata=ENDLESS)
        eventually(lambda: len(running(producer, batch)) >= SLOTS, what="all of the batch's slots are taken")
        assert {producer.status(job).worker for job in running(producer, batch)} == {names["others"]}
        urgent = submitted(producer, 3 * SLOTS, priority="interactive", tenant="a", sampling={"max_tokens": 2})
        answers = [producer.result(job, timeout_seconds=60) for job in urgent]
        assert {answer.worker for answer in answers} == {names["interactive"]}
        for job in batch:
            producer.cancel(job)
        normal = submitted(producer, 3, sampling={"max_tokens": 2})
        assert {producer.result(job, timeout_seconds=60).worker for job in normal} == {names["others"]}


def test_a_background_job_is_answered_under_endless_interactive_load(
    start: Callable[..., RunningFleet], producer: Producer
) -> None:
    """Within its bound: so many interactive jobs, and those that the worker held, may be answered before it."""
    start(max_num_seqs=SLOTS)
    bound = 1 / LANE_TURNS[Priority.BACKGROUND].share + 4 * SLOTS

    def load() -> Iterator[dict[str, Any]]:
        while not background_is_done:
            yield {"model": "sim", "prompt": "again", "priority": "interactive", "sampling": {"max_tokens": 1}}

    background_is_done: list[bool] = []
    outcomes = producer.map(load(), window=4 * SLOTS, in_order=False)
    for _ in range(SLOTS):
        next(outcomes)
    background = producer.submit(model="sim", prompt="at last", priority="background", sampling={"max_tokens": 1})
    answered = 0
    for _ in outcomes:
        answered += 1
        if producer.status(background).state is JobState.SUCCEEDED:
            background_is_done.append(True)
            break
    outcomes.close()  # type: ignore[attr-defined]  # a generator
    assert answered <= bound


def test_two_tenants_share_a_worker_though_one_came_with_a_hundred_jobs_before(
    start: Callable[..., RunningFleet], producer: Producer
) -> None:
    """From when both have jobs queued, the other's ten begin while about as many of the hundred do, not all of them."""
    start(max_num_seqs=SLOTS, seconds_per_token=0.02)
    fields = {"model": "sim", "prompt": "a job", "sampling": {"max_tokens": 8}}
    many, few = (
        [outcome.submission for outcome in producer.submit_many([fields | {"tenant": tenant}] * count)]
        for tenant, count in (("many", 100), ("few", 10))
    )
    assert all(outcome.unwrap().text for outcome in producer.results([*many, *few], timeout_seconds=120))
    last_of_few = max(began(producer, job) for job in few)
    many_began = [began(producer, job) for job in many]
    beside = [at for at in many_began if few[-1].enqueued_at < at < last_of_few]
    assert 0 < len(beside) <= len(few) + 2 * SLOTS
    assert max(many_began) > last_of_few


def test_a_worker_leaves_jobs_that_its_memory_has_no_room_for_to_its_neighbour(
    start: Callable[..., RunningFleet], producer: Producer
) -> None:
    """Each takes one of the large jobs, and a small one does not pass those that wait."""
    start(kv_cache_tokens=2000)
    start(kv_cache_tokens=2000)
    words = "word " * 1000  # 5,000 bytes, so about 1,250 tokens
    large = [
        producer.submit(model="sim", prompt=f"{number} {words}", sampling={"max_tokens": 100}, metadata=ENDLESS)
        for number in range(4)
    ]
    eventually(lambda: len(running(producer, large)) == 2, what="each worker has one")
    first, second = running(producer, large)
    assert producer.status(first).worker != producer.status(second).worker
    small = producer.submit(model="sim", prompt="small", sampling={"max_tokens": 1})
    producer.cancel(first)
    eventually(lambda: len(running(producer, large)) == 2, what="the next has the room")
    assert producer.status(small).state is JobState.QUEUED
    for job in large:
        producer.cancel(job)
    assert producer.result(small, timeout_seconds=60).text
