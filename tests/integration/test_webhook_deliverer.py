"""A deliverer in this process: what it gives up by itself, and a Redis that is away."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import redis

from producer import Producer, WebhookState, keys
from producer.tasks import end
from producer.webhooks.addresses import AddressPolicy
from producer.webhooks.deliverer import Deliverer, DeliveryOptions, delivering
from producer.webhooks.retrying import Retrying
from tests.receivers import Received, Receiver, Reply, receiving
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

OPTIONS = DeliveryOptions(AddressPolicy(["localhost"]), Retrying(first_seconds=0.05, most_attempts=3))


@asynccontextmanager
async def ended_job(redis_url: str, receiver: Receiver) -> AsyncIterator[tuple[Producer, str]]:
    """A job that was cancelled, with a webhook."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
        producer.create_webhook_secret()
        job = producer.submit(model="m", prompt="x", webhook=receiver.url)
        producer.cancel(job)
        yield producer, job.job_id


async def meanwhile(condition: Callable[[], object]) -> None:
    """Wait until that is true, while this loop delivers."""
    await asyncio.to_thread(eventually, condition, seconds=60)


async def until_dead(producer: Producer) -> str:
    """What was wrong with the only event that was given up."""
    await meanwhile(lambda: producer.webhooks(WebhookState.DEAD))
    return producer.webhooks(WebhookState.DEAD)[0].wrong


async def test_an_event_is_given_up_after_its_last_attempt(redis_url: str) -> None:
    """Not before."""
    with receiving() as receiver:
        receiver.answer = lambda _: (500, {})
        async with ended_job(redis_url, receiver) as (producer, _), delivering(redis_url, OPTIONS):
            assert await until_dead(producer) == "HTTP 500"
        assert len(receiver.received) == 3


async def test_gone_ends_an_event_at_once(redis_url: str) -> None:
    """As the specification has it."""
    with receiving() as receiver:
        receiver.answer = lambda _: (410, {})
        async with ended_job(redis_url, receiver) as (producer, _), delivering(redis_url, OPTIONS):
            assert await until_dead(producer) == "HTTP 410"
        assert len(receiver.received) == 1


async def test_an_event_whose_attempts_end_every_deliverer_is_given_up(redis_url: str) -> None:
    """It has had its attempts, though nobody noted what came of them."""
    with receiving() as receiver, redis.Redis.from_url(redis_url) as client:
        async with ended_job(redis_url, receiver) as (producer, job_id):
            client.hset(f"fleet:webhook:msg_{job_id}_1", "attempts", "3")
            async with delivering(redis_url, OPTIONS):
                assert "were not finished" in await until_dead(producer)
        assert receiver.received == []


async def test_a_stored_result_that_is_none_is_told_as_a_failure(redis_url: str) -> None:
    """Whatever stands there, somebody hears that the job has ended."""
    with receiving() as receiver, redis.Redis.from_url(redis_url) as client:
        async with ended_job(redis_url, receiver) as (_, job_id):
            client.set(keys.result(job_id), b'{"status": "SUCCESS", "result": NaN}')
            async with delivering(redis_url, OPTIONS):
                await meanwhile(lambda: receiver.received)
        [one] = receiver.received
    assert json.loads(one.body)["data"]["failure"]["code"] == "internal"


async def test_a_closed_deliverer_finishes_what_it_has_begun(redis_url: str) -> None:
    """So that nobody has to make the attempt again."""
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(_: Received) -> Reply:
        loop.call_soon_threadsafe(begun.set)
        release.wait(30)
        return 204, {}

    with receiving() as receiver:
        receiver.answer = slow
        async with ended_job(redis_url, receiver) as (producer, _):
            deliverer = Deliverer(redis_url, OPTIONS)
            running = asyncio.create_task(deliverer.run())
            await begun.wait()
            await end(running)
            closing = asyncio.create_task(deliverer.close())
            loop.call_soon(release.set)
            await closing
            assert producer.webhooks() == producer.webhooks(WebhookState.DEAD) == []


async def test_a_redis_that_was_away_is_waited_for(tmp_path: Path) -> None:
    """The same deliverer goes on."""
    port = free_port()
    deliverer = Deliverer(f"redis://127.0.0.1:{port}/0", OPTIONS)
    running = asyncio.create_task(deliverer.run())
    with receiving() as receiver:
        for turn in (1, 2):
            with EmbeddedServer(tmp_path / str(turn), port) as server:
                async with ended_job(server.url, receiver):
                    await meanwhile(lambda: len(receiver.received) == turn)  # noqa: B023 - called at once
    assert not running.done()
    await end(running)
    await deliverer.close()
