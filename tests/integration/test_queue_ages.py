"""What waits in which lane, and for how long the oldest of it has: lists and flows, sync and async."""

import json
from collections.abc import Iterator

import pytest
import redis

from producer import AsyncProducer, Priority, Producer, keys
from producer.queue_counts import MOST_TENANTS, LaneCounts, QueueCounts, count_queues
from tests.burying import Undertaker


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def lane(counts: QueueCounts, priority: Priority) -> LaneCounts:
    """One of the lanes."""
    return next(one for one in counts.lanes if one.priority is priority)


def backdate(client: redis.Redis, priority: Priority, seconds: int) -> None:
    """The lane's oldest listed message came so much earlier."""
    name = keys.lane("m", priority)
    message = json.loads(client.rpop(name))
    fleet = message["headers"]["fleet"]
    fleet["enqueued_at"] -= seconds
    client.rpush(name, json.dumps(message))


def test_every_lane_counts_and_ages_by_itself(client: redis.Redis, producer: Producer) -> None:
    """A lane in which nothing waits has no age; the queue's is the greatest."""
    for _ in range(2):
        producer.submit(model="m", prompt="x", priority=Priority.BATCH)
    producer.submit(model="m", prompt="x", priority=Priority.INTERACTIVE)
    backdate(client, Priority.BATCH, 600)
    [counts] = producer.queues()
    assert [(one.priority, one.waiting) for one in counts.lanes] == [
        (Priority.INTERACTIVE, 1),
        (Priority.NORMAL, 0),
        (Priority.BATCH, 2),
        (Priority.BACKGROUND, 0),
    ]
    assert counts.waiting == 3
    assert lane(counts, Priority.NORMAL).oldest_seconds is None
    interactive, batch = (lane(counts, each).oldest_seconds for each in (Priority.INTERACTIVE, Priority.BATCH))
    assert interactive is not None
    assert batch is not None
    assert 0 <= interactive < 600 <= batch < 700
    assert counts.oldest_seconds == batch


def test_jobs_of_tenants_count_and_age_too(client: redis.Redis, producer: Producer) -> None:
    """Whoever's came first, by name or not, held at a limit or not."""
    for tenant in ("beta", "alpha", "gamma"):
        for _ in range(2):
            producer.submit(model="m", prompt="x", tenant=tenant)
    step = keys.PRIORITY_STEPS[Priority.NORMAL]
    order = keys.QueueKeys("m").order(step)
    first = min(str(member, "ascii").split("|")[1] for member in client.zrange(order, 0, -1))
    [counts] = producer.queues()
    seconds, micros = client.time()
    expected = seconds + micros / 1e6 - int(first[:16]) / 1e6
    found = lane(counts, Priority.NORMAL)
    assert found.waiting == 6
    assert found.oldest_seconds is not None
    assert 0 <= expected - found.oldest_seconds < 5
    client.zadd(order, {"delta|0000001000000000000000": 0})
    [counts] = producer.queues()
    oldest = lane(counts, Priority.NORMAL).oldest_seconds
    assert oldest is not None
    assert oldest > 1e9, "a flow whose first job is of 1970 makes the lane as old"


def test_a_message_that_does_not_tell_has_no_age(client: redis.Redis, producer: Producer) -> None:
    """It counts; and so many tenants are no trouble."""
    client.lpush(keys.queue("m"), "no message of ours")
    producer.declare_model("empty")
    order = keys.QueueKeys("m").order(3)
    client.zadd(order, {f"t{number:06}|{10**15 + number:016}000000": 0 for number in range(MOST_TENANTS + 50)})
    client.lpush(keys.flow_lane_of_step("m", 3), *[""] * (MOST_TENANTS + 50))
    empty, counts = producer.queues()
    assert (empty.waiting, empty.oldest_seconds) == (0, None)
    assert lane(counts, Priority.INTERACTIVE) == LaneCounts(Priority.INTERACTIVE, 1)
    assert lane(counts, Priority.NORMAL).waiting == MOST_TENANTS + 50
    assert lane(counts, Priority.NORMAL).oldest_seconds is not None


async def test_both_producers_and_the_command_line_say_the_same(
    client: redis.Redis, redis_url: str, producer: Producer
) -> None:
    """Dead letters among it, that come and go; nothing at all where nothing is known."""
    async with AsyncProducer(redis_url) as loop:
        producer.submit(model="m", prompt="x", tenant="t")
        assert [one.dead for one in await loop.queues()] == [0]
        letter = Undertaker(client).poison()
        producer.declare_model("n")
        producer.submit(model="n", prompt="x")
        producer.set_queue_limit("n", 5)
        asked, told, counted = await loop.queues(), producer.queues(), count_queues(client)
        for counts in (asked, told, counted):
            assert [(one.model, one.waiting, one.dead, one.max_waiting) for one in counts] == [
                ("m", 0, 1, 2_000_000),
                ("n", 1, 0, 5),
            ]
        producer.purge_dead_letters([letter])
        assert [one.dead for one in await loop.queues()] == [0, 0]
        client.flushall()
        assert await loop.queues() == producer.queues() == []
