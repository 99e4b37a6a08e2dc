"""Thousands of callers that wait in one event loop: looked for together, without a subscription for each."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import redis

from producer import AsyncProducer, FleetUnreachable, GenerationResult, ResultExpired, ResultNotReady, Submission, keys
from producer.result_feed import MOST_SUBSCRIPTIONS
from tests.finishing import generation_result
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

CROWD = 2 * MOST_SUBSCRIPTIONS


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[AsyncProducer]:
    """A producer, and a fleet that knows the model ``m``."""
    async with AsyncProducer(redis_url) as ours:
        await ours.declare_model("m")
        yield ours


async def submitted(producer: AsyncProducer, count: int) -> list[Submission]:
    """So many jobs."""
    outcomes = await producer.submit_many({"model": "m", "prompt": f"{number}"} for number in range(count))
    return [outcome.unwrap() for outcome in outcomes]


def waiting(producer: AsyncProducer, jobs: Iterable[Submission | str]) -> list[asyncio.Task[GenerationResult]]:
    """A caller for each."""
    return [asyncio.create_task(producer.result(job, 120)) for job in jobs]


def answer(redis_url: str, submissions: Iterable[Submission]) -> None:
    """Store an answer for each, and publish none of them."""
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for submission in submissions:
            result = generation_result(submission.job_id).model_dump(mode="json")
            pipeline.set(keys.result(submission.job_id), json.dumps({"status": "SUCCESS", "result": result}))
        pipeline.execute()


def channels(redis_url: str) -> int:
    """How many results are listened for."""
    with redis.Redis.from_url(redis_url) as client:
        return len(client.pubsub_channels(f"{keys.result('')}*"))


async def test_ten_thousand_waiting_callers_are_each_told_of_their_own_job(
    redis_url: str, producer: AsyncProducer
) -> None:
    """Answered in another order than submitted, and no job has a subscription of its own."""
    submissions = await submitted(producer, 10_000)
    callers = waiting(producer, submissions)
    most_channels = 0
    for start in range(0, 10_000, 1_000):
        await asyncio.to_thread(answer, redis_url, reversed(submissions[9_000 - start : 10_000 - start]))
        if start < 10_000 - CROWD:
            most_channels = max(most_channels, await asyncio.to_thread(channels, redis_url))

    answers = await asyncio.gather(*callers)

    assert [each.id for each in answers] == [submission.job_id for submission in submissions]
    assert most_channels <= MOST_SUBSCRIPTIONS
    await asyncio.to_thread(eventually, lambda: channels(redis_url) == 0, what="the end of all subscriptions")


async def test_what_is_left_of_a_crowd_is_told_by_publication(redis_url: str, producer: AsyncProducer) -> None:
    """As soon as it is no crowd any more."""
    submissions = await submitted(producer, CROWD)
    callers = waiting(producer, submissions)
    await asyncio.to_thread(answer, redis_url, submissions[3:])
    await asyncio.gather(*callers[3:])
    await asyncio.to_thread(eventually, lambda: channels(redis_url) == 3, what="the subscriptions of who is left")
    await asyncio.to_thread(answer, redis_url, submissions[:3])

    assert [each.id for each in await asyncio.gather(*callers)] == [each.job_id for each in submissions]


async def test_in_a_crowd_a_job_that_nobody_knows_and_a_timeout_are_the_same_errors(
    redis_url: str, producer: AsyncProducer
) -> None:
    """And each only its own caller's."""
    submissions = await submitted(producer, CROWD)
    callers = waiting(producer, submissions)
    [unknown] = waiting(producer, ["no-such-job"])
    impatient = asyncio.create_task(producer.result(submissions[0], 0.05))

    with pytest.raises(ResultExpired, match="no-such-job"):
        await unknown
    with pytest.raises(ResultNotReady, match=submissions[0].job_id):
        await impatient
    await asyncio.to_thread(answer, redis_url, submissions)
    assert len(await asyncio.gather(*callers)) == CROWD


async def test_a_restarting_server_loses_no_caller_of_a_crowd(tmp_path: Path) -> None:
    """They are looked for again."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server:
        async with AsyncProducer(server.url) as producer:
            await producer.declare_model("m")
            submissions = await submitted(producer, CROWD)
            callers = waiting(producer, submissions)
            await asyncio.to_thread(answer, server.url, submissions[:10])
            await asyncio.gather(*callers[:10])
            server.kill()
            server.start()
            await asyncio.to_thread(answer, server.url, submissions[10:])

            assert len(await asyncio.gather(*callers)) == CROWD


async def test_closing_the_producer_tells_a_whole_crowd(redis_url: str) -> None:
    """Each with an error of its own."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        submissions = await submitted(producer, CROWD)
        callers = waiting(producer, submissions)
        await asyncio.to_thread(answer, redis_url, submissions[:1])
        await callers[0]

    errors = await asyncio.gather(*callers[1:], return_exceptions=True)

    assert {type(error) for error in errors} == {FleetUnreachable}
    assert "closed" in str(errors[0])
    assert len(set(map(id, errors))) == CROWD - 1
