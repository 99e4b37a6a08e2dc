"""A producer as web servers use it: made before the server forks, and shared by more threads than a pool holds."""

import asyncio
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import Pool

import anyio
import pytest
import redis

from producer import AsyncProducer, GenerationResult, Producer, keys
from tests.finishing import generation_result
from tests.waiting import eventually

JOBS = 50
THREADS = 150


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """One that has asked already, so that it has a connection; its fleet knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def answer(redis_url: str, job_id: str) -> None:
    """Store the answer of a job that no worker is there for."""
    result = generation_result(job_id).model_dump(mode="json")
    with redis.Redis.from_url(redis_url) as client:
        client.set(keys.result(job_id), json.dumps({"status": "SUCCESS", "result": result}))


def ask_and_read(producer: Producer, redis_url: str) -> list[tuple[str, str]]:
    """For some jobs the id that was given at submission, and the one that the answer has."""
    ids = []
    for number in range(JOBS):
        job = producer.submit(model="m", prompt=f"page {number}")
        answer(redis_url, job.job_id)
        ids.append((job.job_id, producer.result(job, timeout_seconds=60).id))
    return ids


@pytest.fixture
def forked(producer: Producer) -> Iterator[Pool]:
    """Two processes that were forked when the producer had a connection open, as ``gunicorn --preload`` does it."""
    global inherited  # noqa: PLW0603 - what a forked process finds in its module is the point
    inherited = producer
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield pool


inherited: Producer | None = None


def ask_and_read_inherited(redis_url: str) -> list[tuple[str, str]]:
    """The same in a forked process, with the producer that it found there."""
    assert inherited is not None
    return ask_and_read(inherited, redis_url)


def test_a_producer_that_was_connected_before_a_fork_serves_parent_and_children(
    producer: Producer, redis_url: str, forked: Pool
) -> None:
    """All at once: each process reads its own replies, and no two jobs have one id."""
    children = [forked.apply_async(ask_and_read_inherited, (redis_url,)) for _ in range(2)]
    ids = ask_and_read(producer, redis_url) + [pair for child in children for pair in child.get(60)]
    assert [asked for asked, answered in ids if asked != answered] == []
    assert len({asked for asked, _ in ids}) == 3 * JOBS


def test_more_threads_wait_than_a_pool_of_the_client_library_holds(producer: Producer, redis_url: str) -> None:
    """Each keeps its connection while it waits, and another one can still submit."""
    jobs = [producer.submit(model="m", prompt=f"page {number}") for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        waiting: list[Future[GenerationResult]] = [threads.submit(producer.result, job, 60) for job in jobs]
        with redis.Redis.from_url(redis_url) as client:
            eventually(lambda: len(client.pubsub_channels()) == THREADS, what="a subscription of each")
            assert len(client.client_list()) <= 2 * THREADS + 2
        last = producer.submit(model="m", prompt="one more")
        for job in (*jobs, last):
            answer(redis_url, job.job_id)
        assert [result.result(60).id for result in waiting] == [job.job_id for job in jobs]
        assert producer.result(last, timeout_seconds=60).id == last.job_id


async def test_a_reader_that_anyio_cancels_leaves_nothing_behind(redis_url: str) -> None:
    """As Starlette ends a stream whose reader left: cancelled again at everything that it awaits on its way out."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        job = await producer.submit(model="m", prompt="x", stream=True)

        async def read() -> None:
            async for _ in producer.stream(job):
                pass

        async with anyio.create_task_group() as readers:
            readers.start_soon(read)
            await asyncio.to_thread(eventually, lambda: producer._streams._readers, what="a reader")
            readers.cancel_scope.cancel()
        await asyncio.to_thread(eventually, lambda: not producer._streams._readers, what="nobody to look for")
        assert not producer._feed._waiters
