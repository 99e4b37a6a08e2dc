"""What comes back to the queue without a result: reaped, handed back, put off; and in which order, counted how."""

from collections.abc import Iterator

import pytest

from producer.contract import Priority
from tests.leasing import LeaseQueue, answer, end, raws, run_down, tags
from tests.waiting import eventually
from workers.transport.lease_store import FinishStatus, LeasePolicy, Release


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def numbered(first: int, last: int) -> list[bytes]:
    """Messages in the order of their numbers."""
    return [b"%03d" % number for number in range(first, last + 1)]


def test_only_expired_leases_are_reaped(queue: LeaseQueue) -> None:
    """Whoever held them; the others stay with their holders."""
    queue.push(b"a", b"b", b"c")
    one, two = queue.store("one"), queue.store("two")
    first, second = tags(one.claim(2, held=0).messages)
    [third] = tags(two.claim(1, held=0).messages)
    queue.expire(first, third)
    assert set(two.reap()) == {first, third}
    assert [one.holds(tag) for tag in (first, second, third)] == [False, True, False]
    assert queue.waiting() == [b"a", b"c"]
    assert two.reap() == []


def test_the_first_claimed_is_the_first_again(queue: LeaseQueue) -> None:
    """Ahead of what has waited meanwhile."""
    queue.push(*numbered(1, 6))
    queue.store().claim(4, held=0)
    queue.expire()
    queue.store().reap()
    assert queue.waiting() == numbered(1, 6)


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_the_order_survives_batches_of_reaping(queue: LeaseQueue, limit: int) -> None:
    """However many go back at once."""
    queue.push(*numbered(1, 10))
    queue.store().claim(10, held=0)
    queue.expire()
    goes = 0
    while queue.store().reap(limit):
        goes += 1
    assert goes == -(-10 // limit)
    assert queue.waiting() == numbered(1, 10)


@pytest.mark.parametrize("renewed_last", ["one", "two"])
def test_the_order_survives_two_dead_workers_and_two_batches(queue: LeaseQueue, renewed_last: str) -> None:
    """Who renewed last, and whose leases ended last because of it, says nothing about who claimed first."""
    queue.push(*numbered(1, 12))
    held: dict[str, list[str]] = {"one": [], "two": []}
    for consumer in ("one", "two", "two", "one", "one", "two"):
        held[consumer] += tags(queue.store(consumer).claim(2, held=0).messages)
    moments = {tag: 2.0 if consumer == renewed_last else 1.0 for consumer in held for tag in held[consumer]}
    queue.client.zadd(queue.keys.leases, moments)
    assert [len(queue.store("three").reap(limit=8)) for _ in range(2)] == [8, 4]
    assert queue.waiting() == numbered(1, 12)


def test_each_message_goes_back_to_its_own_lane(queue: LeaseQueue) -> None:
    """Reaped or handed back, in two goes."""
    for priority in Priority:
        queue.push(b"%s 1" % priority.encode(), b"%s 2" % priority.encode(), priority=priority)
    store = queue.store()
    claimed = tags(store.claim(8, held=0).messages)
    store.release(claimed[::2], Release.HAND_BACK)
    queue.expire()
    store.reap()
    for priority in Priority:
        assert sorted(queue.waiting(priority)) == [b"%s 1" % priority.encode(), b"%s 2" % priority.encode()]


def test_a_reaped_lease_is_a_delivery_in_the_history(queue: LeaseQueue) -> None:
    """Who had it, since when, and what became of it."""
    queue.push(b"a")
    claim = queue.store("one").claim(1, held=0)
    queue.expire()
    queue.store("two").reap()
    [again] = queue.store("two").claim(1, held=0).messages
    assert (again.delivery, again.retries) == (2, 0)
    [event] = again.history
    assert event["worker"] == "one@host"
    assert event["delivery"] == 1
    assert event["event"] == "the lease expired: its worker was killed, hung or cut off"
    assert float(event["claimed_at"]) == pytest.approx(claim.server_seconds)
    assert float(event["at"]) >= float(event["claimed_at"])


def test_what_is_done_has_no_past(queue: LeaseQueue) -> None:
    """The next message of the same bytes is a new one."""
    queue.push(b"a")
    run_down(queue, deaths=1)
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    assert store.finish([end(tag, "a")]) == [FinishStatus.STORED]
    assert queue.leftovers() == []
    queue.push(b"a")
    assert [message.delivery for message in store.claim(1, held=0).messages] == [1]


def test_a_past_is_forgotten_after_its_lifetime(queue: LeaseQueue) -> None:
    """So that messages that were purged leave nothing behind."""
    queue.push(b"a")
    run_down(queue.with_policy(LeasePolicy(lease_seconds=3600, record_lifetime_seconds=100)), deaths=1)
    assert 0 < queue.client.ttl(queue.keys.redelivery) <= 100


def test_a_hand_back_counts_nothing(queue: LeaseQueue) -> None:
    """The job is where it was, as if it had never been claimed."""
    queue.push(*numbered(1, 4))
    store = queue.store()
    claimed = tags(store.claim(3, held=0).messages)
    assert store.release(claimed, Release.HAND_BACK) == 3
    assert queue.waiting() == numbered(1, 4)
    assert queue.leftovers() == []
    assert [message.delivery for message in store.claim(4, held=0).messages] == [1, 1, 1, 1]


def test_a_stale_holder_gives_nothing_up(queue: LeaseQueue) -> None:
    """In none of the ways."""
    queue.push(b"a")
    one, two = queue.store("one"), queue.store("two")
    stale = tags(one.claim(1, held=0).messages)
    queue.expire()
    one.reap()
    [fresh] = tags(two.claim(1, held=0).messages)
    for how in Release:
        assert one.release(stale, how) == 0
    assert two.holds(fresh)
    assert (queue.waiting(), queue.waiting_apart(), queue.client.zcard(queue.keys.delayed)) == ([], [], 0)


def test_a_retry_is_claimed_when_its_time_has_come(queue: LeaseQueue) -> None:
    """Counted as a retry and not as a delivery, with its reason."""
    queue.push(b"a")
    store = queue.store()
    claimed = tags(store.claim(1, held=0).messages)
    assert store.release(claimed, Release.RETRY, reason="the engine was full", delay_seconds=3600) == 1
    assert store.claim(1, held=0).messages == ()
    queue.come_due()
    [again] = store.claim(1, held=0).messages
    assert (again.delivery, again.retries) == (1, 1)
    assert [event["event"] for event in again.history] == ["the engine was full"]


def test_a_parked_message_is_claimed_when_its_time_has_come(queue: LeaseQueue) -> None:
    """Nothing is counted."""
    queue.push(b"a", priority=Priority.BATCH)
    store = queue.store()
    claimed = tags(store.claim(1, held=0).messages)
    assert store.release(claimed, Release.PARK, delay_seconds=3600) == 1
    assert store.claim(1, held=0).messages == ()
    queue.come_due()
    [again] = store.claim(1, held=0).messages
    assert (again.step, again.delivery, again.retries, again.history) == (6, 1, 0, ())


def test_a_delay_is_by_the_servers_clock(queue: LeaseQueue) -> None:
    """It is over by itself."""
    queue.push(b"a")
    store = queue.store()
    before = queue.client.time()
    store.release(tags(store.claim(1, held=0).messages), Release.PARK, delay_seconds=0.05)
    eventually(lambda: store.claim(1, held=0).messages, what="the delay is over")
    after = queue.client.time()
    assert (after[0] - before[0]) + (after[1] - before[1]) / 1e6 >= 0.05


def test_what_is_due_goes_before_what_waits_in_its_lane(queue: LeaseQueue) -> None:
    """The earliest first; a more urgent lane still goes before both."""
    queue.push(*numbered(1, 3))
    store = queue.store()
    for delay_seconds, message in zip((3.0, 1.0, 2.0), store.claim(3, held=0).messages, strict=True):
        store.release([message.tag], Release.PARK, delay_seconds=delay_seconds - 10)
    queue.push(b"waits")
    queue.push(b"urgent", priority=Priority.INTERACTIVE)
    assert raws(store.claim(8, held=0).messages) == [b"urgent", b"002", b"003", b"001", b"waits"]


def test_the_last_delivery_is_for_the_answer_alone(queue: LeaseQueue) -> None:
    """A delivery above ``max_deliveries`` tells every death before it."""
    queue.push(b"a")
    run_down(queue, deaths=3)
    [message] = queue.store().claim(8, held=0).messages
    assert message.delivery == queue.policy.max_deliveries + 1
    assert [event["delivery"] for event in message.history] == [1, 2, 3]


@pytest.mark.parametrize("deaths", [1, 2, 20])
def test_the_death_of_who_answers_counts_nothing_more(queue: LeaseQueue, deaths: int) -> None:
    """Nothing was run, so nothing can be learned from it; the record does not grow without end."""
    queue.push(b"a")
    run_down(queue, deaths=queue.policy.max_deliveries + deaths)
    [message] = queue.store().claim(1, held=0).messages
    assert message.delivery == queue.policy.max_deliveries + 1
    assert len(message.history) == queue.policy.max_deliveries


@pytest.mark.parametrize("max_deliveries", [1, 2, 5])
def test_a_message_is_run_as_often_as_the_policy_says(queue: LeaseQueue, max_deliveries: int) -> None:
    """And then answered, whatever else is in the queue."""
    queue = queue.with_policy(LeasePolicy(lease_seconds=3600.0, max_deliveries=max_deliveries))
    queue.push(b"a")
    store = queue.store()
    deliveries = []
    for _ in range(max_deliveries + 1):
        [message] = store.claim(8, held=0).messages
        deliveries.append(message.delivery)
        queue.expire()
        store.reap()
    assert deliveries == list(range(1, max_deliveries + 2))


def test_nothing_is_left_behind_when_everything_is_done(queue: LeaseQueue) -> None:
    """Whatever a message went through: no lease, count, history, suspicion or delay outlives it."""
    queue.push(*numbered(1, 5))
    store = queue.store()
    for how in Release:
        store.release(tags(store.claim(1, held=0).messages), how)
        queue.come_due()
    run_down(queue, deaths=2)
    while claimed := store.claim(64, held=0).messages:
        store.finish([end(message.tag, message.raw.decode()) for message in claimed])
    assert [queue.result(f"00{number}") for number in range(1, 6)] == [answer("fine")] * 5
    assert queue.leftovers() == []
