"""How fast a queue drains: what is counted as jobs end, and what follows from it for those that wait for room."""

from collections.abc import Iterator

import pytest
import redis

from producer import AsyncProducer, DrainRate, Priority, Producer, QueueFull, keys
from producer.drain_rate import read_rate, retry_after_seconds
from tests.leasing import MODEL, LeaseQueue, answer, tags
from workers.transport.lease_store import Finish, FinishStatus

NOW = 1_000_005.0
"""The middle of a bucket."""


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue of a model that is known."""
    with Producer(redis_url) as producer:
        producer.declare_model(MODEL)
    with LeaseQueue.at(redis_url) as queue:
        yield queue


@pytest.mark.parametrize(
    ("entries", "rate"),
    [
        ([], None),
        (["99994 50 500", "1 1 1"], None),
        (["99995 55 550"], DrainRate(1.0, 10.0)),
        (["100000 20 100"], DrainRate(2.0, 10.0)),
        (["99999 20 0", "100000 10 0"], DrainRate(2.0, 0.0)),
        (["99995 100 10", "99997 5 0", "99994 999 999", "100000 5 0", "100001 7 7"], DrainRate(2.0, 10 / 55)),
    ],
)
def test_a_rate_is_of_the_last_minute_or_of_what_was_busy_of_it(entries: list[str], rate: DrainRate | None) -> None:
    """Never of less than one bucket; older and future ones do not count."""
    assert read_rate(entries, NOW) == rate


@pytest.mark.parametrize(
    ("rate", "places", "sharers", "seconds"),
    [
        (None, 5, 1, 1),
        (DrainRate(0.0, 0.0), 5, 1, 1),
        (DrainRate(100.0, 0.0), 1, 1, 1),
        (DrainRate(2.0, 0.0), 5, 1, 3),
        (DrainRate(2.0, 0.0), 5, 4, 10),
        (DrainRate(0.001, 0.0), 1, 1, 120),
    ],
)
def test_when_there_is_room_follows_from_the_rate(
    rate: DrainRate | None, places: int, sharers: int, seconds: int
) -> None:
    """Within bounds, and soon where nothing is known."""
    assert retry_after_seconds(rate, places, sharers) == seconds


def finish(queue: LeaseQueue, count: int, tokens: int | None) -> list[FinishStatus]:
    """Claim and answer so many jobs in one call; what became of them."""
    queue.push(*(b"%d" % number for number in range(count)))
    store = queue.store()
    claimed = tags(store.claim(count, held=0).messages)
    ends = [Finish(tag, keys.result(f"{tag}"), answer("text"), 60, tokens=tokens) for tag in claimed]
    statuses = store.finish(ends)
    assert store.finish(ends) == statuses, "sent again after a lost reply"
    return statuses


def test_each_end_is_counted_once_with_its_tokens(queue: LeaseQueue, redis_url: str) -> None:
    """Also where a result is there already; not what was sent twice, and not by whoever lost its lease."""
    assert finish(queue, 3, tokens=10) == [FinishStatus.STORED] * 3
    assert finish(queue, 1, tokens=None) == [FinishStatus.STORED]
    entries = [entry.split() for entry in queue.client.hvals(queue.keys.drained)]
    assert sum(int(jobs) for _, jobs, _ in entries) == 4
    assert sum(int(tokens) for _, _, tokens in entries) == 30
    assert 60 < queue.client.ttl(queue.keys.drained) <= 120
    with Producer(redis_url) as producer:
        [rate] = producer.drain_rates().values()
    # The test may have taken any part of a bucket, or of two.
    assert 4 / 20 < rate.jobs_per_second <= 4 / 10
    assert rate.tokens_per_second == pytest.approx(rate.jobs_per_second * 30 / 4)


def test_the_ring_has_as_many_places_as_buckets_and_takes_old_ones_again(queue: LeaseQueue) -> None:
    """What was counted there a while ago is forgotten."""
    queue.client.hset(queue.keys.drained, mapping={str(slot): f"{slot} 1000 1000" for slot in range(7)})
    finish(queue, 2, tokens=5)
    entries = [entry.decode() for entry in queue.client.hvals(queue.keys.drained)]
    assert len(entries) == 7
    assert sum(entry.endswith(" 2 10") for entry in entries) == 1


def test_a_strangers_key_costs_no_result(queue: LeaseQueue) -> None:
    """Results are stored all the same."""
    queue.client.set(queue.keys.drained, "a stranger's")
    assert finish(queue, 2, tokens=5) == [FinishStatus.STORED] * 2
    with Producer(queue_url(queue)) as producer:
        producer.set_queue_limit(MODEL, 1)
        producer.submit(model=MODEL, prompt="x")
        with pytest.raises(QueueFull) as caught:
            producer.submit(model=MODEL, prompt="x")
    assert caught.value.retry_after_seconds == 1


def queue_url(queue: LeaseQueue) -> str:
    """Where it is."""
    where = queue.client.connection_pool.connection_kwargs
    return f"redis://{where['host']}:{where['port']}/{where.get('db', 0)}"


def counted(client: redis.Redis, jobs: int) -> None:
    """So many jobs ended in the last 10 s."""
    seconds, _ = client.time()
    ring = {str(slot): f"{seconds // 10 - slot} {jobs} 0" for slot in range(2)}
    client.hset(keys.QueueKeys(MODEL).drained, mapping=ring)


async def test_a_full_queue_says_when_to_expect_room(queue: LeaseQueue, redis_url: str) -> None:
    """Ten jobs in 10 to 20 s make room for one more of five in up to 2 s; a fourth tenant has a fourth of that."""
    counted(queue.client, 5)
    async with AsyncProducer(redis_url) as producer:
        await producer.set_queue_limit(MODEL, 5)
        for number in range(5):
            await producer.submit(model=MODEL, prompt="x", tenant=f"{number % 4}")
        with pytest.raises(QueueFull) as caught:
            await producer.submit(model=MODEL, prompt="x")
        assert caught.value.retry_after_seconds in {1, 2}
        await producer.set_queue_limit(MODEL, None)
        await producer.set_tenant("0", max_waiting_jobs=1)
        with pytest.raises(QueueFull) as caught:
            await producer.submit(model=MODEL, prompt="x", tenant="0", priority=Priority.NORMAL)
        # Two of its jobs must go, at a fourth of 0.5 to 1 a second.
        assert 8 <= caught.value.retry_after_seconds <= 16
        assert list(await producer.drain_rates()) == [MODEL]
