"""The leases of one queue: what a claim brings, and every way in which a lease ends."""

import json
from collections.abc import Iterator

import pytest
import redis

from producer import keys
from producer.contract import Priority
from tests.leasing import MODEL, LeaseQueue, answer, end, publications, raws, tags
from tests.waiting import eventually
from workers.transport.lease_store import DeadLetter, Finish, FinishStatus, LeasePolicy, Release, Screening

LETTER = DeadLetter("letter", '{"reason": "it killed three engines"}')


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def test_urgent_lanes_are_claimed_first_and_each_lane_in_its_order(queue: LeaseQueue) -> None:
    """Whatever the order in which they were pushed."""
    for priority in reversed(Priority):
        queue.push(b"%s 1" % priority.encode(), b"%s 2" % priority.encode(), priority=priority)
    claimed = queue.store().claim(8, held=0).messages
    assert raws(claimed) == [b"%s %d" % (priority.encode(), number) for priority in Priority for number in (1, 2)]
    assert [message.step for message in claimed] == [0, 0, 3, 3, 6, 6, 9, 9]


def test_a_claim_brings_no_more_than_its_credit(queue: LeaseQueue) -> None:
    """Over all lanes together; what is left stays where it was."""
    queue.push(b"a", b"b", priority=Priority.INTERACTIVE)
    queue.push(b"c", b"d")
    assert raws(queue.store().claim(3, held=0).messages) == [b"a", b"b", b"c"]
    assert queue.waiting() == [b"d"]
    assert queue.store().claim(0, held=3).messages == ()


def test_a_message_is_any_bytes(queue: LeaseQueue) -> None:
    """The queue's elements are judged later: what a stranger pushed comes out as it went in, and goes back so."""
    strange = [b"", b"\n", b"\x00\xff", b"1 2 3\n4", "\u2028".encode()]
    queue.push(*strange)
    claimed = queue.store().claim(8, held=0).messages
    assert raws(claimed) == strange
    queue.store().release(tags(claimed), Release.HAND_BACK)
    assert queue.waiting() == strange


def test_the_first_delivery_has_no_past(queue: LeaseQueue) -> None:
    """Number one, never retried, no history."""
    queue.push(b"a")
    [message] = queue.store().claim(1, held=0).messages
    assert (message.delivery, message.retries, message.history) == (1, 0, ())


def test_each_delivery_has_a_fresh_tag_of_its_consumer(queue: LeaseQueue) -> None:
    """So an old one can be told from it."""
    queue.push(b"a")
    store, other = queue.store("one"), queue.store("two")
    seen = []
    for _ in range(3):
        seen += tags(store.claim(1, held=0).messages)
        store.release(seen[-1:], Release.HAND_BACK)
    seen += tags(other.claim(1, held=0).messages)
    assert len(set(seen)) == 4
    assert [store.is_own(tag) for tag in seen] == [True, True, True, False]


def test_a_consumer_does_not_own_the_tags_of_one_whose_name_goes_on(queue: LeaseQueue) -> None:
    """``one`` and ``one-b`` are two."""
    queue.push(b"a")
    [message] = queue.store("one-b").claim(1, held=0).messages
    assert not queue.store("one").is_own(message.tag)


def test_a_claim_tells_the_servers_time(queue: LeaseQueue) -> None:
    """By which deadlines are judged."""
    before = queue.client.time()
    claim = queue.store().claim(1, held=0)
    after = queue.client.time()
    assert before[0] + before[1] / 1e6 <= claim.server_seconds <= after[0] + after[1] / 1e6


def test_a_claim_acknowledges_what_is_done(queue: LeaseQueue) -> None:
    """Even without credit for more."""
    queue.push(b"a", b"b")
    store = queue.store()
    first, second = tags(store.claim(2, held=0).messages)
    store.claim(0, held=1, acknowledge=[first])
    assert (store.holds(first), store.holds(second)) == (False, True)
    store.claim(1, held=0, acknowledge=[second, first])
    assert queue.leftovers() == []


def test_the_end_of_a_job_stores_and_publishes_its_result(queue: LeaseQueue) -> None:
    """With its lifetime; the message is acknowledged."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    with publications(queue, "a") as published:
        assert store.finish([end(tag, "a")]) == [FinishStatus.STORED]
        assert store.finish([end(tag, "a")]) == [FinishStatus.STORED]
        store.finish([end("nobody's", "a", "late")])
        queue.client.publish(keys.result("a"), "the last word")
        eventually(lambda: b"the last word" in published())
    assert published() == [queue.result("a"), b"the last word"]
    assert queue.result("a") == answer("fine")
    assert 0 < queue.client.ttl(keys.result("a")) <= 60
    assert queue.leftovers() == []


def test_a_result_without_lifetime_is_kept(queue: LeaseQueue) -> None:
    """As Celery's ``result_expires = 0`` means it."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    store.finish([Finish(tag, keys.result("a"), answer("fine"), lifetime_seconds=0)])
    assert queue.client.ttl(keys.result("a")) == -1


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_terminal_result_stays(queue: LeaseQueue, status: str) -> None:
    """The message is acknowledged all the same."""
    queue.push(b"a")
    queue.client.set(keys.result("a"), answer("first", status))
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    assert store.finish([end(tag, "a", "second")]) == [FinishStatus.KEPT]
    assert queue.result("a") == answer("first", status)
    assert queue.leftovers() == []


def test_a_result_that_is_not_terminal_is_replaced(queue: LeaseQueue) -> None:
    """Celery stores STARTED and RETRY under the same key."""
    queue.push(b"a")
    queue.client.set(keys.result("a"), answer("", "STARTED"))
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    assert store.finish([end(tag, "a")]) == [FinishStatus.STORED]
    assert queue.result("a") == answer("fine")


@pytest.mark.parametrize(
    ("before", "status", "noted"),
    [
        (None, "SUCCESS", None),
        (None, "FAILURE", b"FAILURE"),
        (None, "REVOKED", b"REVOKED"),
        ("RETRY", "SUCCESS", b"SUCCESS"),
    ],
)
def test_an_end_that_is_no_plain_success_is_noted_in_the_jobs_record(
    queue: LeaseQueue, before: str | None, status: str, noted: bytes | None
) -> None:
    """With the result, since monitors that may read none tell by it how a killed worker's jobs ended."""
    if before is not None:
        queue.client.set(keys.result("a"), answer("", before))
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    store.finish([Finish("nobody's", keys.result("a"), answer("late", status), lifetime_seconds=60)])
    assert not queue.client.exists(keys.job_record("a"))
    store.finish([Finish(tag, keys.result("a"), answer("fine", status), lifetime_seconds=60)])
    assert queue.client.hget(keys.job_record("a"), "ended") == noted
    assert noted is None or 0 < queue.client.ttl(keys.job_record("a")) <= 60


def test_each_job_of_one_call_ends_by_itself(queue: LeaseQueue) -> None:
    """One fenced attempt among them changes nothing for the others."""
    queue.push(b"a", b"b", b"c")
    store = queue.store()
    first, second, third = tags(store.claim(3, held=0).messages)
    queue.expire(second)
    store.reap()
    queue.client.set(keys.result("c"), answer("first"))
    ends = [end(first, "a"), end(second, "b"), end(third, "c", "second")]
    assert store.finish(ends) == [FinishStatus.STORED, FinishStatus.FENCED, FinishStatus.KEPT]
    assert [queue.result(job) for job in "abc"] == [answer("fine"), None, answer("first")]
    assert queue.waiting() == [b"b"]


def test_an_end_may_be_told_again_when_its_reply_was_lost(queue: LeaseQueue) -> None:
    """The second reply is that of the first, and nothing is published twice."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    store.finish([end(tag, "a")])
    assert store.finish([end(tag, "a")]) == [FinishStatus.STORED]
    assert store.finish([end(tag, "a", "something else")]) == [FinishStatus.FENCED]
    assert queue.result("a") == answer("fine")


def test_a_dead_letter_is_written_with_the_result(queue: LeaseQueue) -> None:
    """And not at all by an attempt that is fenced."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    assert store.finish([end("nobody's", "a", dead_letter=LETTER)]) == [FinishStatus.FENCED]
    assert not queue.client.exists(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX, keys.DEAD_LETTER_MODELS)
    assert store.finish([end(tag, "a", dead_letter=LETTER)]) == [FinishStatus.STORED]
    assert queue.client.hgetall(keys.DEAD_LETTERS) == {b"letter": LETTER.text.encode()}
    assert queue.client.hgetall(keys.DEAD_LETTER_MODELS) == {b"letter": MODEL.encode()}
    assert queue.client.zscore(keys.DEAD_LETTER_INDEX, "letter") == pytest.approx(queue.client.time()[0], abs=10)


def test_what_names_no_job_is_buried_by_its_holder_alone(queue: LeaseQueue) -> None:
    """It has no result; the letter is all that is left."""
    queue.push(b"garbage")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    assert not store.bury("nobody's", LETTER)
    assert store.bury(tag, LETTER)
    assert not store.bury(tag, LETTER)
    assert queue.client.hget(keys.DEAD_LETTERS, "letter") == LETTER.text.encode()
    assert queue.leftovers() == []


def test_a_renewed_lease_does_not_end(queue: LeaseQueue) -> None:
    """Even one whose time was up, as long as nobody took it over."""
    queue.push(b"a", b"b")
    store = queue.store()
    first, second = tags(store.claim(2, held=0).messages)
    queue.expire(first, second)
    assert store.renew([first]).lost_tags == frozenset()
    assert store.reap() == [second]
    assert store.renew([first, second]).lost_tags == {second}


def test_a_renewal_tells_of_cancellations(queue: LeaseQueue) -> None:
    """So that a lost control message is made good within a renewal."""
    store = queue.store()
    assert not store.renew([]).has_cancels
    queue.client.hset(queue.keys.cancels, "a", "token")
    assert store.renew([]).has_cancels
    assert store.cancelled_tokens(["a", "b"]) == ["token", None]
    store.forget_cancels(["a"])
    assert not store.renew([]).has_cancels


def test_a_claimed_job_is_screened(queue: LeaseQueue) -> None:
    """One that has its result need not be run, whatever was cancelled before or since."""
    for job, status in {"done": "SUCCESS", "begun": "STARTED", "done and cancelled": "FAILURE"}.items():
        queue.client.set(keys.result(job), answer("", status))
    queue.client.hset(queue.keys.cancels, mapping={"cancelled": "token", "done and cancelled": "old token"})
    assert queue.store().screen(["new", "begun", "done", "cancelled", "done and cancelled"]) == [
        (Screening.RUN, ""),
        (Screening.RUN, ""),
        (Screening.SETTLED, ""),
        (Screening.CANCELLED, "token"),
        (Screening.SETTLED, ""),
    ]


def test_one_token_wakes_for_what_a_claim_leaves_behind(queue: LeaseQueue) -> None:
    """The bell is rung on, once; a claim that leaves nothing rings for nobody."""
    queue.push(b"a", b"b", b"c")
    store = queue.store()
    for left in (2, 1):
        store.claim(1, held=0)
        assert queue.client.rpop(queue.keys.doorbell) == b"1", f"{left} left"
        assert not queue.client.exists(queue.keys.doorbell)
    store.claim(1, held=0)
    assert not queue.client.exists(queue.keys.doorbell)


def test_what_comes_back_rings_once(queue: LeaseQueue) -> None:
    """However many messages, and however often."""
    queue.push(b"a", b"b", b"c", b"d")
    store = queue.store()
    first, *rest = tags(store.claim(4, held=0).messages)
    store.release([first], Release.HAND_BACK)
    queue.expire(*rest)
    assert set(store.reap()) == set(rest)
    assert queue.client.llen(queue.keys.doorbell) == 1


def test_two_models_share_nothing(queue: LeaseQueue) -> None:
    """A queue is one model's."""
    queue.push(b"a")
    queue.client.lpush(keys.lane(f"{MODEL}-big", Priority.NORMAL), b"b")
    assert raws(queue.store().claim(8, held=0).messages) == [b"a"]


def test_a_script_that_the_server_forgot_is_loaded_again(queue: LeaseQueue) -> None:
    """A restarted server knows none of them."""
    store = queue.store()
    store.claim(1, held=0)
    queue.client.script_flush()
    queue.push(b"a")
    assert raws(store.claim(1, held=0).messages) == [b"a"]


def test_leases_are_by_the_servers_clock(queue: LeaseQueue) -> None:
    """A lease of no length is over at once, whatever clock a worker has."""
    queue.push(b"a")
    store = queue.with_policy(LeasePolicy(lease_seconds=0.001)).store()
    [tag] = tags(store.claim(1, held=0).messages)
    eventually(lambda: store.reap() == [tag], what="the lease is over")


def test_history_is_plain_json(queue: LeaseQueue) -> None:
    """Whatever a reason is made of, a line separator of Unicode among it."""
    queue.push(b"a")
    store = queue.store()
    reason = 'a "quoted" reason\nof two lines, three\u2028with \u0085 that one; \x1c\x0b'
    store.release(tags(store.claim(1, held=0).messages), Release.RETRY, reason=reason)
    queue.come_due()
    [message] = store.claim(1, held=0).messages
    [event] = message.history
    assert event["event"] == reason
    assert json.dumps(event)


def test_a_wrong_type_is_a_redis_error(queue: LeaseQueue) -> None:
    """Somebody's key in the place of ours is told, not taken."""
    queue.client.set(queue.keys.leases, "not ours")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.store().renew(["tag"])
