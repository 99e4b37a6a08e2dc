"""Submitting any number of jobs: an outcome for each in order, nothing lost in silence and nothing queued twice."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
import redis

from producer import (
    AsyncProducer,
    BatchSubmitFailed,
    InvalidRequest,
    Priority,
    Producer,
    QueueFull,
    SubmitFailed,
    SubmitOutcome,
    UnknownModel,
    keys,
)
from producer.chunk import CHUNK_JOBS
from producer.submission import Submittable
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

LANE = keys.lane("m", Priority.NORMAL)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server, on which the fleet knows the model ``m``."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain, Producer(redis_url) as producer:
        producer.declare_model("m")
        yield plain


@pytest.fixture(params=["threads", "asyncio"])
def bulk(request: pytest.FixtureRequest) -> "Bulk":
    """Each test that takes it runs on both producers."""
    return Bulk(is_async=request.param == "asyncio")


class Bulk:
    """``submit_many`` of either producer."""

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async

    async def submit(self, redis_url: str, requests: Iterable[Submittable]) -> list[SubmitOutcome]:
        """With a producer of its own."""
        if self._is_async:
            async with AsyncProducer(redis_url) as producer:
                return await producer.submit_many(requests)
        with Producer(redis_url) as producer:
            return producer.submit_many(requests)


def request(number: int, **fields: object) -> dict[str, object]:
    """A request that can be told from others."""
    return {"model": "m", "prompt": f"prompt {number}"} | fields


def large_request(size: int) -> dict[str, object]:
    """So many bytes behind a short beginning: prompts that begin alike wait elsewhere."""
    turns = [{"role": "system", "content": "Short."}, {"role": "user", "content": "x" * size}]
    return {"model": "m", "messages": turns}


def queued(client: redis.Redis) -> list[tuple[str, str]]:
    """Id and prompt of each waiting job, the next one first."""
    messages = [json.loads(message) for message in reversed(client.lrange(LANE, 0, -1))]
    return [(each["headers"]["id"], json.loads(each["body"])[0][0]["prompt"]) for each in messages]


def ids(outcomes: Iterable[SubmitOutcome]) -> list[str]:
    """Of jobs that are all queued."""
    return [outcome.unwrap().job_id for outcome in outcomes]


async def test_many_requests_are_queued_in_their_order(redis_url: str, client: redis.Redis, bulk: Bulk) -> None:
    """More than one run of the script takes."""
    count = 2 * CHUNK_JOBS + 17
    outcomes = await bulk.submit(redis_url, (request(number) for number in range(count)))

    assert [outcome.index for outcome in outcomes] == list(range(count))
    assert queued(client) == [(job_id, f"prompt {number}") for number, job_id in enumerate(ids(outcomes))]


async def test_large_requests_are_queued_too(redis_url: str, client: redis.Redis, bulk: Bulk) -> None:
    """More megabytes than one run takes, and one job that is larger than a run."""
    sizes = [300_000] * 9 + [3_000_000] + [300_000] * 9
    outcomes = await bulk.submit(redis_url, map(large_request, sizes))

    messages = [json.loads(message) for message in reversed(client.lrange(LANE, 0, -1))]
    assert [message["headers"]["id"] for message in messages] == ids(outcomes)
    for message, size in zip(messages, sizes, strict=True):
        assert 0 < len(message["body"]) - size < 1_000


async def test_a_refused_request_is_an_outcome_among_the_others(
    redis_url: str, client: redis.Redis, bulk: Bulk
) -> None:
    """Broken, no request at all, unknown model, conflict, queue full: each with the error that ``submit`` raises."""
    with Producer(redis_url) as producer:
        producer.declare_model("full")
        producer.set_queue_limit("full", 0)
    requests: list[Submittable] = [
        request(0, idempotency_key="k"),
        {"model": "m"},
        7,  # type: ignore[list-item]  # the case
        request(3, model="typo"),
        request(4, idempotency_key="k"),
        request(5, model="full"),
        None,  # type: ignore[list-item]  # the case
        request(0, idempotency_key="k"),
        request(8),
    ]
    outcomes = await bulk.submit(redis_url, requests)

    kinds = [type(outcome.error) for outcome in outcomes]
    refusals = [InvalidRequest, InvalidRequest, UnknownModel, InvalidRequest, QueueFull, InvalidRequest]
    assert kinds == [type(None), *refusals, type(None), type(None)]
    assert [outcome.index for outcome in outcomes] == list(range(9))
    assert outcomes[7].unwrap().duplicate
    assert [job_id for job_id, _ in queued(client)] == ids([outcomes[0], outcomes[8]])
    for outcome, kind in zip(outcomes[1:7], refusals, strict=True):
        with pytest.raises(kind):
            outcome.unwrap()


async def test_nothing_to_submit_asks_redis_nothing(bulk: Bulk) -> None:
    """There need not be one."""
    url = f"redis://127.0.0.1:{free_port()}/0"

    assert await bulk.submit(url, []) == []
    [refused] = await bulk.submit(url, [{"model": "m"}])
    assert isinstance(refused.error, InvalidRequest)


async def test_the_source_is_pulled_no_further_ahead_than_two_runs(redis_url: str, client: redis.Redis) -> None:
    """A list of a million never has to be."""
    furthest = 0

    def requests() -> Iterator[Submittable]:
        nonlocal furthest
        for number in range(5 * CHUNK_JOBS):
            furthest = max(furthest, number + 1 - int(client.llen(LANE)))
            yield request(number)

    with Producer(redis_url) as producer:
        producer.submit_many(requests())

    assert client.llen(LANE) == 5 * CHUNK_JOBS
    assert furthest <= 2 * CHUNK_JOBS


async def test_without_a_server_every_request_is_unsettled_and_can_be_submitted_later(
    tmp_path: Path, bulk: Bulk
) -> None:
    """As the jobs that they were."""
    server = EmbeddedServer(tmp_path, free_port())
    with pytest.raises(SubmitFailed, match=rf"127\.0\.0\.1:{server.port}.*0 requests are settled") as caught:
        await bulk.submit(server.url, [request(0), {"model": "m"}, request(2)])
    failed = caught.value
    assert isinstance(failed, BatchSubmitFailed)
    assert (failed.outcomes, len(failed.unsettled)) == ([], 3)

    with server, Producer(server.url) as producer, redis.Redis.from_url(server.url, decode_responses=True) as client:
        producer.declare_model("m")
        first, broken, second = await bulk.submit(server.url, failed.unsettled)
        again = await bulk.submit(server.url, failed.unsettled)

        assert isinstance(broken.error, InvalidRequest)
        assert ids([again[0], again[2]]) == ids([first, second])
        assert queued(client) == list(zip(ids([first, second]), ["prompt 0", "prompt 2"], strict=True))


async def test_a_server_that_refuses_in_the_middle_leaves_an_exact_account(
    redis_url: str, client: redis.Redis, bulk: Bulk
) -> None:
    """What is certain, what is not, and the rest of the source: together every request, and each becomes one job."""
    count = 5 * CHUNK_JOBS

    def requests() -> Iterator[Submittable]:
        for number in range(count):
            if number == 3 * CHUNK_JOBS + 5:
                client.replicaof("127.0.0.1", str(free_port()))
            yield request(number)

    source = requests()
    try:
        with pytest.raises(BatchSubmitFailed, match=r"(?i)read only replica.*`unsettled` again") as caught:
            await bulk.submit(redis_url, source)
    finally:
        client.replicaof("NO", "ONE")
    failed = caught.value
    certain = queued(client)
    assert [job_id for job_id, _ in certain][: len(failed.outcomes)] == ids(failed.outcomes)
    assert len(failed.outcomes) >= 2 * CHUNK_JOBS

    rest = await bulk.submit(redis_url, itertools.chain(failed.unsettled, source))

    outcomes = ids([*failed.outcomes, *rest])
    assert queued(client) == [(job_id, f"prompt {number}") for number, job_id in enumerate(outcomes)]
    assert len(set(outcomes)) == count


async def test_a_server_that_restarts_in_the_middle_only_delays(tmp_path: Path, bulk: Bulk) -> None:
    """Kept connection and script are gone; every job is queued once."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    count = 4 * CHUNK_JOBS

    def requests() -> Iterator[Submittable]:
        for number in range(count):
            if number in {CHUNK_JOBS + 5, 2 * CHUNK_JOBS}:
                server.kill()
                server.start()
            yield request(number)

    with server, Producer(server.url) as producer, redis.Redis.from_url(server.url, decode_responses=True) as client:
        producer.declare_model("m")
        outcomes = await bulk.submit(server.url, requests())

        assert queued(client) == [(job_id, f"prompt {number}") for number, job_id in enumerate(ids(outcomes))]
        assert len(set(ids(outcomes))) == count


async def test_an_error_of_the_source_comes_after_what_it_gave_is_queued(
    redis_url: str, client: redis.Redis, bulk: Bulk
) -> None:
    """As it is, with a note of how far it went."""

    def broken() -> Iterator[Submittable]:
        yield from (request(number) for number in range(CHUNK_JOBS + 3))
        yield {"model": "m"}
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows") as caught:
        await bulk.submit(redis_url, broken())

    assert client.llen(LANE) == CHUNK_JOBS + 3
    [note] = caught.value.__notes__
    assert f"{CHUNK_JOBS + 4} requests came before this; {CHUNK_JOBS + 3} of them" in note


async def test_an_asynchronous_source_is_submitted_as_it_gives(redis_url: str, client: redis.Redis) -> None:
    """What a slow one gave is queued before it gives more."""

    async def requests() -> AsyncIterator[Submittable]:
        yield request(0)
        await asyncio.to_thread(eventually, lambda: client.llen(LANE) == 1, what="the first job")
        yield request(1)

    async with AsyncProducer(redis_url) as producer:
        outcomes = await producer.submit_many(requests())

    assert queued(client) == list(zip(ids(outcomes), ["prompt 0", "prompt 1"], strict=True))
