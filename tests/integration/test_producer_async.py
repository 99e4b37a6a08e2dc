"""The asyncio producer: the same meaning, and one pub/sub connection however many callers wait."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from producer import (
    AsyncProducer,
    FailureCode,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    JobState,
    ResultExpired,
    ResultNotReady,
    SubmitFailed,
    UnknownModel,
    keys,
)
from producer.submission import RequestLike
from tests.finishing import Answerer, Results, celery_results, generation_result
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

# Celery's backend calls a command of redis-py that redis-py has deprecated.


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[AsyncProducer]:
    """A producer, and a fleet that knows the model ``m``."""
    async with AsyncProducer(redis_url) as ours:
        await ours.declare_model("m")
        yield ours


async def subscriptions(redis_url: str, count: int) -> None:
    """Wait until so many results are listened for."""

    def are_there() -> bool:
        with redis.Redis.from_url(redis_url) as client:
            return len(client.pubsub_channels(f"{keys.result('')}*")) == count

    await asyncio.to_thread(eventually, are_there, what=f"{count} subscriptions")


async def test_submit_status_and_result_mean_what_they_mean_in_threads(
    producer: AsyncProducer, results: Results
) -> None:
    """From the queue to the answer."""
    submission = await producer.submit(model="m", prompt="x", idempotency_key="k")
    again = await producer.submit(model="m", prompt="x", idempotency_key="k")
    queued = await producer.status(submission)
    results.succeed(submission.job_id)

    assert (again.job_id, again.duplicate) == (submission.job_id, True)
    assert queued.state is JobState.QUEUED
    assert await producer.result(submission) == generation_result(submission.job_id)
    assert await producer.result(submission.job_id, timeout_seconds=0) == generation_result(submission.job_id)
    assert (await producer.status(submission)).state is JobState.SUCCEEDED


async def test_refusals_are_the_same_errors(producer: AsyncProducer) -> None:
    """An unknown model, a broken request, an unknown job."""
    with pytest.raises(UnknownModel, match="known: m"):
        await producer.submit(model="typo", prompt="x")
    with pytest.raises(InvalidRequest, match=r"sampling\.temperature"):
        await producer.submit(model="m", prompt="x", temperature=1)
    with pytest.raises(ResultExpired):
        await producer.result("no-such-job")
    with pytest.raises(ResultExpired):
        await producer.result("no-such-job", timeout_seconds=0)


async def test_models_are_declared_and_forgotten(producer: AsyncProducer) -> None:
    """Like the synchronous ones."""
    assert list(await producer.models()) == ["m"]
    assert await producer.forget_model("m")
    assert await producer.models() == {}


async def test_a_timeout_ends_the_wait_and_the_subscription(redis_url: str, producer: AsyncProducer) -> None:
    """Nobody listens for a job that nobody waits for."""
    submission = await producer.submit(model="m", prompt="x")
    for timeout_seconds in (0, 0.05):
        with pytest.raises(ResultNotReady):
            await producer.result(submission, timeout_seconds=timeout_seconds)
    await subscriptions(redis_url, 0)


async def test_five_hundred_waiting_callers_share_one_connection(
    redis_url: str, producer: AsyncProducer, results: Results
) -> None:
    """And each is told of its own job."""
    submissions = await asyncio.gather(*(producer.submit(model="m", prompt=f"{n}") for n in range(500)))
    waiting = [asyncio.create_task(producer.result(submission, 60)) for submission in submissions]
    await subscriptions(redis_url, 500)
    with redis.Redis.from_url(redis_url) as client:
        assert len(client.client_list(_type="pubsub")) == 1

    for submission in submissions:
        await asyncio.to_thread(results.succeed, submission.job_id)

    answers = await asyncio.gather(*waiting)
    assert [answer.id for answer in answers] == [submission.job_id for submission in submissions]
    await subscriptions(redis_url, 0)


async def test_two_callers_may_wait_for_one_job_and_one_may_leave(
    redis_url: str, producer: AsyncProducer, results: Results
) -> None:
    """The other one is still told, also of a failure."""
    submission = await producer.submit(model="m", prompt="x")
    staying = asyncio.create_task(producer.result(submission, 60))
    leaving = asyncio.create_task(producer.result(submission, 60))
    await subscriptions(redis_url, 1)
    leaving.cancel()
    await asyncio.to_thread(results.fail, submission.job_id, InferenceFailed("expired", "too late"))

    with pytest.raises(InferenceFailed, match="too late"):
        await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_closing_the_producer_tells_those_who_still_wait(redis_url: str) -> None:
    """An error of ours, not a cancellation that nobody asked for."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        submission = await producer.submit(model="m", prompt="x")
        waiting = asyncio.create_task(producer.result(submission))
        await subscriptions(redis_url, 1)

    with pytest.raises(FleetUnreachable, match="closed"):
        await waiting


async def test_a_missed_publication_is_made_up_for(redis_url: str, producer: AsyncProducer) -> None:
    """Written without being published."""
    submission = await producer.submit(model="m", prompt="x")
    waiting = asyncio.create_task(producer.result(submission, 60))
    await subscriptions(redis_url, 1)
    with redis.Redis.from_url(redis_url) as client:
        text = generation_result(submission.job_id).model_dump_json()
        client.set(keys.result(submission.job_id), f'{{"status": "SUCCESS", "result": {text}}}')

    assert (await waiting).id == submission.job_id


async def test_a_restarting_server_does_not_lose_waiting_callers(tmp_path: Path) -> None:
    """They are subscribed again and told."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server:
        async with AsyncProducer(server.url) as producer:
            await producer.declare_model("m")
            submissions = [await producer.submit(model="m", prompt="x") for _ in range(3)]
            waiting = [asyncio.create_task(producer.result(submission, 60)) for submission in submissions]
            await subscriptions(server.url, 3)
            server.kill()
            server.start()
            await subscriptions(server.url, 3)
            with celery_results(server.url) as results:
                for submission in submissions:
                    results.succeed(submission.job_id)

                assert [(await task).id for task in waiting] == [submission.job_id for submission in submissions]


async def test_without_a_server_every_call_says_so() -> None:
    """Submitting, asking, waiting and mapping."""
    port = free_port()
    async with AsyncProducer(f"redis://127.0.0.1:{port}/0") as producer:
        with pytest.raises(SubmitFailed, match=f"127.0.0.1:{port}"):
            await producer.submit(model="m", prompt="x")
        with pytest.raises(FleetUnreachable, match=f"127.0.0.1:{port}"):
            await producer.status("j")
        with pytest.raises(FleetUnreachable, match=f"127.0.0.1:{port}"):
            await producer.result("j", timeout_seconds=0.3)
        with pytest.raises(SubmitFailed, match=f"127.0.0.1:{port}"):
            [outcome async for outcome in producer.map([{"model": "m", "prompt": "x"}])]


@pytest.mark.parametrize("is_async", [False, True])
async def test_map_takes_both_kinds_of_iterable_and_pulls_only_the_window_ahead(
    redis_url: str, producer: AsyncProducer, *, is_async: bool
) -> None:
    """In order, each answer with its request."""
    pulled, furthest_ahead = 0, 0

    def requests() -> Iterator[RequestLike]:
        nonlocal pulled
        for number in range(1_000):
            pulled += 1
            yield {"model": "m", "prompt": f"prompt {number}"}

    async def async_requests() -> AsyncIterator[RequestLike]:
        for request in requests():
            yield request

    indexes = []
    with Answerer(redis_url):
        async for outcome in producer.map(async_requests() if is_async else requests(), window=100):
            indexes.append(outcome.index)
            furthest_ahead = max(furthest_ahead, pulled - len(indexes))
            assert outcome.unwrap().text == f"prompt {outcome.index}"

    assert indexes == list(range(1_000))
    assert furthest_ahead < 100


async def test_a_slow_source_does_not_hold_back_what_is_done(redis_url: str, producer: AsyncProducer) -> None:
    """The first outcome comes although the source never gives its second request."""
    never = asyncio.Event()

    async def requests() -> AsyncIterator[RequestLike]:
        yield {"model": "m", "prompt": "first"}
        await never.wait()
        yield {"model": "m", "prompt": "second"}

    outcomes = producer.map(requests())
    with Answerer(redis_url):
        assert (await anext(outcomes)).unwrap().text == "first"
    await outcomes.aclose()


async def test_what_is_refused_is_an_outcome_of_the_map(redis_url: str, producer: AsyncProducer) -> None:
    """And the map goes on, out of order too."""
    requests: list[RequestLike] = [{"model": "m"}, {"model": "typo", "prompt": "x"}, {"model": "m", "prompt": "good"}]
    with Answerer(redis_url):
        outcomes = {outcome.index: outcome async for outcome in producer.map(requests, in_order=False)}

    codes = [failure.code if (failure := outcomes[index].failure) else None for index in range(3)]
    assert codes == [FailureCode.INVALID_REQUEST, FailureCode.MODEL_NOT_FOUND, None]
    assert outcomes[2].unwrap().text == "good"


async def test_an_endless_source_can_be_left(redis_url: str, producer: AsyncProducer) -> None:
    """Closing the iteration closes everything behind it."""
    endless = ({"model": "m", "prompt": f"{number}"} for number in itertools.count())
    outcomes = producer.map(endless, window=10)
    with Answerer(redis_url):
        got = [(await anext(outcomes)).unwrap().text for _ in range(25)]
    await outcomes.aclose()

    assert got == [f"{number}" for number in range(25)]


async def test_no_cancellation_is_forgotten(producer: AsyncProducer) -> None:
    """At whichever step of a command it comes: a timeout around a call, or a task group, would wait in vain."""
    await producer.models()  # connected
    for steps in range(60):
        task = asyncio.create_task(producer.models())
        for _ in range(steps):
            await asyncio.sleep(0)
        is_cancelled = task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled() is is_cancelled, f"cancelled after {steps} steps"
    assert list(await producer.models()) == ["m"], "and no reply is left for the next one"


def test_it_belongs_to_one_event_loop_until_it_is_closed(redis_url: str) -> None:
    """In another its connections would fail, each in its own way."""
    ours = AsyncProducer(redis_url)

    async def declared(*, is_closed: bool) -> list[str]:
        await ours.declare_model("m")
        names = list(await ours.models())
        if is_closed:
            await ours.aclose()
        return names

    assert asyncio.run(declared(is_closed=True)) == ["m"]
    with asyncio.Runner() as first:
        assert first.run(declared(is_closed=False)) == ["m"]
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="one in each loop"):
            second.run(declared(is_closed=False))
        first.run(ours.aclose())
