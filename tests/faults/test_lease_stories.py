"""Each of these was somebody's bug, and lost jobs or answered them twice: its story, and what is different here."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from producer import keys
from tests.leasing import LeaseQueue, answer, end, publications, raws, tags
from tests.waiting import eventually
from workers.embedded import EmbeddedServer
from workers.transport.lease_store import DeadLetter, FinishStatus, Release


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def has_loaded(queue: LeaseQueue) -> bool:
    """Whether the server has read its append-only file."""
    information: Any = queue.client.info("persistence")
    return not information["loading"]


def test_an_acknowledgement_counts_for_the_delivery_that_it_was_made_for(queue: LeaseQueue) -> None:
    """Acknowledging on the wrong delivery.

    Elsewhere: kombu's restored message keeps its delivery tag, so the late acknowledgement of the first worker takes
    the message from under the second, and its death loses the job. Here: each delivery has a tag of its own.
    """
    queue.push(b"a")
    first, second = queue.store("first"), queue.store("second")
    old = tags(first.claim(1, held=0).messages)
    queue.expire()
    second.reap()
    [new] = tags(second.claim(1, held=0).messages)
    first.claim(0, held=0, acknowledge=old)
    assert second.holds(new)
    queue.expire()
    assert first.reap() == [new]
    assert raws(first.claim(1, held=0).messages) == [b"a"]


def test_an_attempt_that_was_taken_over_answers_nothing(queue: LeaseQueue) -> None:
    """An old attempt publishing after takeover.

    Elsewhere: a worker that was stopped for longer than its lease and goes on writes its result all the same: before
    the new attempt's, or over it. Here: the lease is checked in the script that writes.
    """
    queue.push(b"a")
    stopped, other = queue.store("stopped"), queue.store("other")
    [old] = tags(stopped.claim(1, held=0).messages)
    queue.expire()
    other.reap()
    [new] = tags(other.claim(1, held=0).messages)
    with publications(queue, "a") as published:
        assert stopped.finish([end(old, "a", "old")]) == [FinishStatus.FENCED]
        assert queue.result("a") is None
        assert other.finish([end(new, "a", "new")]) == [FinishStatus.STORED]
        assert stopped.finish([end(old, "a", "old")]) == [FinishStatus.FENCED]
        eventually(published)
    assert published() == [queue.result("a")] == [answer("new")]


def test_an_attempt_that_was_reaped_and_not_taken_over_yet_answers_nothing(queue: LeaseQueue) -> None:
    """The same in the moment between: the message waits again, and is to be answered by who claims it."""
    queue.push(b"a")
    store = queue.store()
    [old] = tags(store.claim(1, held=0).messages)
    queue.expire()
    store.reap()
    assert store.finish([end(old, "a", "old")]) == [FinishStatus.FENCED]
    assert store.release([old], Release.HAND_BACK) == 0
    assert queue.waiting() == [b"a"]


def test_a_result_and_its_acknowledgement_are_on_disk_together(durable_server: EmbeddedServer) -> None:
    """Death between result and acknowledgement.

    Elsewhere: a worker stores the result, is killed, and the job runs again; or it acknowledges first, is killed, and
    the job is never answered. Here: both are one script, which is one transaction of the append-only file. The server
    is killed in the middle of many; each job is either answered and gone, or neither.
    """
    jobs = [f"{number:04}" for number in range(2000)]
    with durable_server, LeaseQueue.at(durable_server.url) as queue:
        queue.push(*(job.encode() for job in jobs))
        store = queue.store()
        held: dict[str, str] = {}
        while claimed := store.claim(64, held=0).messages:
            held |= {message.raw.decode(): message.tag for message in claimed}
        is_killed = threading.Event()

        def finish_until_killed() -> None:
            for job in jobs:
                try:
                    store.finish([end(held[job], job)])
                except redis.ConnectionError:
                    is_killed.set()
                    return

        finisher = threading.Thread(target=finish_until_killed)
        finisher.start()
        eventually(lambda: queue.result(jobs[100]))
        durable_server.kill()
        finisher.join()
        assert is_killed.is_set()
        durable_server.start()
        eventually(partial(has_loaded, queue), what="the append-only file is read")
        answered = {job for job in jobs if queue.result(job)}
        assert len(jobs) > len(answered) > 100
        assert {job for job in jobs if not store.holds(held[job])} == answered


def test_a_job_is_requeued_so_often_and_no_more(queue: LeaseQueue) -> None:
    """Requeue for ever.

    Elsewhere: a job that kills its worker goes back to the queue each time, and takes one worker after the other down
    for as long as anybody lets it; brokers without a delivery count cannot tell. Here: it is run ``max_deliveries``
    times; then its caller gets a failure and the operator a letter, even when those who answer die, too.
    """
    queue.push(b"killer")
    store = queue.store()
    runs = 0
    for _ in range(10):
        [message] = store.claim(8, held=0).messages
        runs += message.delivery <= queue.policy.max_deliveries
        queue.expire()
        store.reap()
    assert runs == queue.policy.max_deliveries
    [message] = store.claim(8, held=0).messages
    letter = DeadLetter("killer", "{}")
    assert store.finish([end(message.tag, "killer", "poisoned", dead_letter=letter)]) == [FinishStatus.STORED]
    assert queue.result("killer") == answer("poisoned", "FAILURE")
    assert queue.leftovers() == []


def test_a_result_reaches_the_caller_of_its_own_job_alone(queue: LeaseQueue) -> None:
    """Late result delivered to another caller.

    Elsewhere: a delivery number is used again after a restart or failover, and the late result of the first delivery
    ends the second: its job is acknowledged without an answer, or with somebody else's. Here: the server loses its
    last second, the counter of claims with it, and the old tag still fits nothing.
    """
    queue.push(b"first", b"second")
    store = queue.store()
    [late] = tags(store.claim(1, held=0).messages)
    queue.client.delete(queue.keys.leases, queue.keys.leased, queue.keys.claim_counter)
    [again] = store.claim(1, held=0).messages
    assert again.raw == b"second"
    assert store.finish([end(late, "first", "late")]) == [FinishStatus.FENCED]
    assert store.holds(again.tag)
    assert (queue.result("first"), queue.result("second")) == (None, None)


def test_an_answer_ends_its_job_once_though_the_message_was_queued_twice(queue: LeaseQueue) -> None:
    """A sender that saw no reply pushes the same bytes again: both are claimed, the first answer stays."""
    queue.push(b"a", b"a")
    one, two = queue.store("one"), queue.store("two")
    [first], [second] = tags(one.claim(1, held=0).messages), tags(two.claim(1, held=0).messages)
    assert two.finish([end(second, "a", "two")]) == [FinishStatus.STORED]
    assert one.finish([end(first, "a", "one")]) == [FinishStatus.KEPT]
    assert queue.result("a") == answer("two")
    assert queue.leftovers() == []


def test_a_cancel_that_crosses_the_answer_is_not_looked_for_any_more(queue: LeaseQueue) -> None:
    """It came when the engine was done and the answer not yet written: for a week it was asked for by every worker."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    queue.client.hset(queue.keys.cancels, mapping={"a": "its token", "b": "another's"})
    queue.client.set(keys.result("a"), answer("cancelled", "REVOKED"))
    assert store.finish([end(tag, "a")]) == [FinishStatus.KEPT]
    assert queue.client.hgetall(queue.keys.cancels) == {b"b": b"another's"}


def test_a_cancelled_job_that_had_no_result_is_not_looked_for_once_it_has_one(queue: LeaseQueue) -> None:
    """Its first result had lived its time when a worker came to the message."""
    queue.push(b"a")
    store = queue.store()
    [tag] = tags(store.claim(1, held=0).messages)
    queue.client.hset(queue.keys.cancels, mapping={"a": "its token", "b": "another's"})
    assert store.finish([replace(end(tag, "a"), result=answer("cancelled", "REVOKED"))]) == [FinishStatus.STORED]
    assert queue.client.hgetall(queue.keys.cancels) == {b"b": b"another's"}
