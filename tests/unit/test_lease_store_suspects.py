"""Messages that may have killed an engine: run apart, by one consumer at a time, the last chance alone."""

from collections.abc import Iterator

import pytest

from producer.contract import Priority
from tests.leasing import LeaseQueue, end, raws, run_down, tags
from tests.waiting import eventually
from workers.transport.lease_store import SUSPECT_GROUP_JOBS, LeasePolicy, Release


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def make_suspects(queue: LeaseQueue, *messages: bytes) -> None:
    """An engine died while it ran these."""
    queue.push(*messages)
    store = queue.store("doomed")
    assert store.release(tags(store.claim(64, held=0).messages), Release.SUSPECT, reason="it died") == len(messages)


def test_what_a_dead_engine_ran_is_set_apart(queue: LeaseQueue) -> None:
    """In its order, out of the lanes, the death counted and written down."""
    make_suspects(queue, b"a", b"b", b"c")
    assert queue.waiting() == []
    assert queue.waiting_apart() == [b"a", b"b", b"c"]
    claim = queue.store().claim(8, held=0)
    assert raws(claim.messages) == [b"a", b"b", b"c"]
    assert [message.delivery for message in claim.messages] == [2, 2, 2]
    assert [event["event"] for message in claim.messages for event in message.history] == ["it died"] * 3


def test_a_lost_lease_makes_no_suspect_until_one_delivery_is_left(queue: LeaseQueue) -> None:
    """Workers are killed for many reasons; the last delivery is made apart all the same."""
    queue.push(b"a")
    run_down(queue, deaths=1)
    assert (queue.waiting(), queue.waiting_apart()) == ([b"a"], [])
    run_down(queue, deaths=1)
    assert (queue.waiting(), queue.waiting_apart()) == ([], [b"a"])


def test_suspects_are_run_by_who_has_finished_everything_else(queue: LeaseQueue) -> None:
    """Until then it gets nothing at all; then suspects and nothing else, until they are done."""
    make_suspects(queue, b"suspect")
    queue.push(b"innocent")
    store = queue.store()
    waiting = store.claim(8, held=2)
    assert (waiting.is_isolating, waiting.messages) == (True, ())
    apart = store.claim(8, held=0)
    assert (apart.is_isolating, raws(apart.messages)) == (True, [b"suspect"])
    still = store.claim(7, held=1)
    assert (still.is_isolating, still.messages) == (True, ())
    store.finish([end(tag, "suspect") for tag in tags(apart.messages)])
    after = store.claim(8, held=0)
    assert (after.is_isolating, raws(after.messages)) == (False, [b"innocent"])


def test_the_others_go_on_meanwhile(queue: LeaseQueue) -> None:
    """One consumer at a time runs suspects."""
    make_suspects(queue, b"suspect")
    assert queue.store("one").claim(8, held=0).is_isolating
    make_suspects(queue, b"another")
    queue.push(b"innocent")
    claim = queue.store("two").claim(8, held=0)
    assert (claim.is_isolating, raws(claim.messages)) == (False, [b"innocent"])


def test_who_runs_suspects_rings_for_what_it_leaves_in_the_lanes(queue: LeaseQueue) -> None:
    """It answered the bell, so somebody else must hear it again."""
    make_suspects(queue, b"suspect")
    queue.push(b"innocent", priority=Priority.BACKGROUND)
    for held in (1, 0, 1):
        queue.client.delete(queue.keys.doorbell)
        assert queue.store().claim(8, held=held).is_isolating
        assert queue.client.llen(queue.keys.doorbell) == 1


def test_suspects_share_an_engine_in_groups(queue: LeaseQueue) -> None:
    """Never more than credit."""
    messages = [b"%02d" % number for number in range(SUSPECT_GROUP_JOBS + 3)]
    make_suspects(queue, *messages)
    store = queue.store()
    first = store.claim(64, held=0).messages
    assert raws(first) == messages[:SUSPECT_GROUP_JOBS]
    assert store.claim(64, held=len(first)).messages == ()
    assert raws(store.claim(2, held=0).messages) == messages[SUSPECT_GROUP_JOBS:-1]


def test_the_last_delivery_is_alone(queue: LeaseQueue) -> None:
    """Neither after others nor before others in one claim: who dies then has only itself to blame."""
    late, doomed = queue.store("late"), queue.store("doomed")
    queue.push(b"behind", b"before")
    behind, before = tags(late.claim(2, held=0).messages)
    make_suspects(queue, b"a", b"b")
    last = tags(doomed.claim(8, held=0).messages)
    late.release([behind], Release.SUSPECT)
    doomed.release(last, Release.SUSPECT)
    late.release([before], Release.SUSPECT)
    assert queue.waiting_apart() == [b"before", b"a", b"b", b"behind"]
    store = queue.store()
    groups = [raws(store.claim(8, held=0).messages) for _ in range(4)]
    assert groups == [[b"before"], [b"a"], [b"b"], [b"behind"]]


def test_one_that_kills_engines_is_found_and_its_batch_mates_are_answered(queue: LeaseQueue) -> None:
    """Within ``max_deliveries`` for each of them."""
    queue.push(*(b"%02d" % number for number in range(20)))
    store = queue.store()
    answered: dict[bytes, int] = {}
    while claimed := store.claim(64, held=0).messages:
        runs = [message for message in claimed if message.delivery <= queue.policy.max_deliveries]
        if b"13" in raws(runs):
            store.release(tags(claimed), Release.SUSPECT, reason="it died")
            continue
        store.finish([end(message.tag, message.raw.decode()) for message in claimed])
        answered |= {message.raw: message.delivery for message in claimed}
    assert {raw for raw, delivery in answered.items() if delivery > queue.policy.max_deliveries} == {b"13"}
    assert len(answered) == 20
    assert queue.leftovers() == []


def test_what_has_killed_too_often_is_answered_by_anybody(queue: LeaseQueue) -> None:
    """It is not run again, so it need not be apart: back in its lane, and a full worker takes it."""
    queue.push(b"a", priority=Priority.BATCH)
    run_down(queue, deaths=queue.policy.max_deliveries)
    assert (queue.waiting(Priority.BATCH), queue.waiting_apart()) == ([b"a"], [])
    claim = queue.store().claim(1, held=5)
    assert [(message.step, message.delivery) for message in claim.messages] == [(6, 4)]


@pytest.mark.parametrize("lease_seconds", [0.05, 0.0009, 1.001 / 64])
def test_the_right_to_run_suspects_ends_with_its_holder(queue: LeaseQueue, lease_seconds: float) -> None:
    """After one lease of any length another takes over."""
    make_suspects(queue, b"suspect")
    queue = queue.with_policy(LeasePolicy(lease_seconds=lease_seconds))
    assert queue.store("one").claim(1, held=1).is_isolating
    eventually(lambda: queue.store("two").claim(1, held=0).messages, what="another has the suspect")
    assert queue.waiting_apart() == []


def test_the_right_to_run_suspects_is_renewed_by_its_holder_alone(queue: LeaseQueue) -> None:
    """With or without leases to renew."""
    make_suspects(queue, b"suspect")
    queue.store("one").claim(1, held=1)
    queue.client.pexpire(queue.keys.isolation, 60_000)
    queue.store("two").renew([])
    assert queue.client.ttl(queue.keys.isolation) <= 60
    queue.store("one").renew([])
    assert queue.client.ttl(queue.keys.isolation) > 60


def test_a_suspect_that_is_handed_back_is_a_suspect_still(queue: LeaseQueue) -> None:
    """In its place, nothing counted."""
    make_suspects(queue, b"a", b"b", b"c")
    store = queue.store()
    store.release(tags(store.claim(2, held=0).messages), Release.HAND_BACK)
    assert queue.waiting_apart() == [b"a", b"b", b"c"]
    assert [message.delivery for message in store.claim(8, held=0).messages] == [2, 2, 2]


def test_nobody_joins_suspects_when_one_of_them_is_handed_back(queue: LeaseQueue) -> None:
    """Their worker keeps the right to run them until it has given back the last; then another may begin at once."""
    make_suspects(queue, b"a", b"b")
    queue.push(b"innocent")
    one, two = queue.store("one"), queue.store("two")
    first, second = tags(one.claim(8, held=0).messages)
    one.release([second], Release.HAND_BACK)
    assert raws(two.claim(1, held=0).messages) == [b"innocent"]
    assert one.claim(8, held=1).messages == ()
    one.release([first], Release.HAND_BACK)
    assert raws(two.claim(8, held=0).messages) == [b"a", b"b"]


@pytest.mark.parametrize("how", [Release.RETRY, Release.PARK])
def test_a_suspect_that_was_put_off_is_a_suspect_still(queue: LeaseQueue, how: Release) -> None:
    """Its delay does not bring it together with others."""
    make_suspects(queue, b"suspect")
    queue.push(b"innocent")
    store = queue.store()
    store.release(tags(store.claim(8, held=0).messages), how, delay_seconds=3600)
    queue.come_due()
    claim = store.claim(8, held=0)
    assert (claim.is_isolating, raws(claim.messages)) == (True, [b"suspect"])
    assert queue.waiting() == [b"innocent"]


def test_what_is_answered_only_is_put_off_to_its_lane(queue: LeaseQueue) -> None:
    """It needs no engine of its own."""
    queue.push(b"a")
    run_down(queue, deaths=queue.policy.max_deliveries)
    store = queue.store()
    store.release(tags(store.claim(1, held=0).messages), Release.PARK)
    queue.come_due()
    claim = store.claim(1, held=5)
    assert [message.delivery for message in claim.messages] == [queue.policy.max_deliveries + 1]


def test_a_suspect_of_a_dead_worker_is_a_suspect_still(queue: LeaseQueue) -> None:
    """Its lease ended like any other; it goes back apart."""
    make_suspects(queue, b"a")
    queue.store().claim(1, held=0)
    queue.expire()
    queue.store().reap()
    assert (queue.waiting(), queue.waiting_apart()) == ([], [b"a"])
