"""Waiting for thousands of results with one shared look: each comes once, as it ends, and none is lost."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from producer import (
    AsyncProducer,
    FailureCode,
    FleetUnreachable,
    InferenceFailed,
    JobOutcome,
    Producer,
    ResultNotReady,
    Submission,
    keys,
)
from tests.finishing import celery_results, generation_result
from tests.waiting import free_port
from workers.embedded import EmbeddedServer


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def submitted(producer: Producer, count: int) -> list[Submission]:
    """So many jobs."""
    outcomes = producer.submit_many({"model": "m", "prompt": f"{number}"} for number in range(count))
    return [outcome.unwrap() for outcome in outcomes]


def answer(client: redis.Redis, submissions: Iterable[Submission]) -> None:
    """Store an answer for each, as a worker does but for the publication."""
    with client.pipeline(transaction=False) as pipeline:
        for submission in submissions:
            result = generation_result(submission.job_id).model_dump(mode="json")
            pipeline.set(keys.result(submission.job_id), json.dumps({"status": "SUCCESS", "result": result}))
        pipeline.execute()


def test_ten_thousand_results_are_waited_for_while_they_come(redis_url: str, producer: Producer) -> None:
    """Answered in another order than submitted, and each is told once."""
    submissions = submitted(producer, 10_000)
    shuffled = [*submissions[1::2], *reversed(submissions[::2])]

    def answer_all() -> None:
        with redis.Redis.from_url(redis_url) as client:
            for start in range(0, len(shuffled), 500):
                answer(client, shuffled[start : start + 500])

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer_all)
        outcomes = list(producer.results(submissions, timeout_seconds=120))
        answering.result()

    assert sorted(outcome.index for outcome in outcomes) == list(range(10_000))
    assert all(outcome.job_id == submissions[outcome.index].job_id for outcome in outcomes)
    assert all(outcome.unwrap().id == outcome.job_id for outcome in outcomes)
    with redis.Redis.from_url(redis_url) as client:
        assert client.pubsub_channels(f"{keys.result('')}*") == []


@pytest.mark.parametrize("in_order", [True, False])
def test_outcomes_come_as_they_end_or_in_the_order_given(redis_url: str, producer: Producer, *, in_order: bool) -> None:
    """By submission and by id, and one that is named twice comes twice."""
    first, second = submitted(producer, 2)
    outcomes = producer.results([first, second.job_id, second], in_order=in_order)
    with redis.Redis.from_url(redis_url) as client:
        if not in_order:
            answer(client, [second])
            assert [next(outcomes).index, next(outcomes).index] == [1, 2]
        answer(client, [first, second])

        assert [outcome.index for outcome in outcomes] == ([0, 1, 2] if in_order else [0])


def test_failed_cancelled_and_unknown_jobs_are_outcomes(redis_url: str, producer: Producer) -> None:
    """With their codes; nobody waits for what nobody knows."""
    failed, cancelled = submitted(producer, 2)
    with celery_results(redis_url) as results:
        results.fail(failed.job_id, InferenceFailed("poisoned", "it kills engines"))
    producer.cancel(cancelled)

    outcomes = list(producer.results([failed, cancelled, "no-such-job"], in_order=True))

    codes = [outcome.failure.code for outcome in outcomes if outcome.failure]
    assert codes == [FailureCode.POISONED, FailureCode.CANCELLED, FailureCode.INTERNAL]
    assert outcomes[2].failure is not None
    assert "nothing is known of job no-such-job" in outcomes[2].failure.message


@pytest.mark.parametrize("timeout_seconds", [0, 0.1])
def test_what_has_ended_comes_before_the_timeout_says_how_many_have_not(
    redis_url: str, producer: Producer, timeout_seconds: float
) -> None:
    """A timeout of zero only looks."""
    submissions = submitted(producer, 1_200)
    with redis.Redis.from_url(redis_url) as client:
        answer(client, submissions[100:])
    ended: list[JobOutcome] = []

    with pytest.raises(ResultNotReady, match=r"100 of 1,200 jobs are still queued or running"):
        ended.extend(producer.results(submissions, timeout_seconds=timeout_seconds))
    assert [outcome.index for outcome in ended] == list(range(100, 1_200))


def test_no_jobs_have_no_outcomes() -> None:
    """And no server is asked."""
    with Producer(f"redis://127.0.0.1:{free_port()}/0") as producer:
        assert list(producer.results([])) == []


def test_a_server_that_restarts_only_delays_and_one_that_stays_away_is_named(tmp_path: Path) -> None:
    """When the timeout runs out."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server, Producer(server.url) as producer, redis.Redis.from_url(server.url) as client:
        producer.declare_model("m")
        submissions = submitted(producer, 50)
        answer(client, submissions[:10])
        outcomes = producer.results(submissions, timeout_seconds=60, in_order=True)
        begun = [next(outcomes) for _ in range(10)]
        server.kill()
        server.start()
        answer(client, submissions[10:])
        assert [outcome.index for outcome in (*begun, *outcomes)] == list(range(50))

        server.kill()
        with pytest.raises(FleetUnreachable, match=str(server.port)):
            list(producer.results(submissions, timeout_seconds=0.3))


async def test_the_asyncio_producer_waits_for_many_too(redis_url: str, producer: Producer) -> None:
    """With the same order, timeout and errors."""
    submissions = submitted(producer, 1_200)
    async with AsyncProducer(redis_url) as waiting:
        with redis.Redis.from_url(redis_url) as client:
            answer(client, submissions[:-1])
        in_order = waiting.results(submissions, in_order=True)
        assert [(await anext(in_order)).index for _ in submissions[:-1]] == list(range(1_199))
        await in_order.aclose()
        with pytest.raises(ResultNotReady, match="1 of 1,200"):
            await _drained(waiting.results(submissions, timeout_seconds=0))
        with redis.Redis.from_url(redis_url) as client:
            answer(client, submissions[-1:])

        assert len(await _drained(waiting.results(submissions, timeout_seconds=60))) == 1_200


async def _drained(outcomes: AsyncIterator[JobOutcome]) -> Sequence[JobOutcome]:
    return [outcome async for outcome in outcomes]
