"""The result backend: results end deliveries, those of one group together, and a failed writing can be repeated."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.task import Context

from producer import keys
from producer.contract import FailureCode
from tests.deliveries import HANDOVER_SECONDS, HeldQueue
from tests.leasing import MODEL, LeaseQueue, answer, publications
from tests.waiting import eventually
from workers.app import AppSettings, make_app
from workers.backend import FleetBackend
from workers.inference.classify import Failed
from workers.pool.outcome import current_tag
from workers.transport.lease_store import DeadLetter, Finish, FinishStatus, LeaseStore
from workers.transport.leases import Leases
from workers.transport.ledger import Held, Ledger

ANSWER = {"text": "x"}
EXPIRES_SECONDS = 100


class UnluckyStore(LeaseStore):
    """The real store; its first replies get lost, after it has acted."""

    replies_to_lose = 0

    def finish(self, ends: Sequence[Finish]) -> list[FinishStatus]:
        """Write, and then perhaps fail."""
        statuses = super().finish(ends)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise redis.exceptions.ConnectionError("the reply was lost")
        return statuses


@dataclass
class Desk(HeldQueue):
    """A worker's app, its backend, and jobs that it holds."""

    app: Celery

    @property
    def backend(self) -> FleetBackend:
        """Celery's, of this app."""
        backend: FleetBackend = self.app.backend
        return backend

    def lose_replies(self, count: int) -> None:
        """From now on."""
        assert isinstance(self.store, UnluckyStore)
        self.store.replies_to_lose = count

    def succeed(self, job_id: str = "j") -> None:
        """What Celery's tracer does with an answer."""
        self.backend.store_result(job_id, ANSWER, "SUCCESS")

    def status(self, job_id: str = "j") -> str | None:
        """The stored one."""
        stored = self.queue.result(job_id)
        return None if stored is None else str(json.loads(stored)["status"])

    def take_over(self, held: Held) -> None:
        """Another worker has the job now, and has answered."""
        self.queue.expire(held.tag)
        other = self.queue.store("two")
        other.reap()
        [again] = other.claim(1, held=0).messages
        assert other.finish([Finish(again.tag, keys.result(held.job_id or ""), answer("theirs"), 60)])


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """At the session's server; leaves no connection behind."""
    with LeaseQueue.at(redis_url) as queue:
        store = UnluckyStore(queue.client, MODEL, queue.policy, consumer="one", worker="one@host")
        leases = Leases(store, Ledger(HANDOVER_SECONDS))
        app = make_app(AppSettings(redis_url, MODEL, result_expires_seconds=EXPIRES_SECONDS), leases)
        yield Desk(queue, leases, app)
        app.backend.client.connection_pool.disconnect()
        app.close()


@contextmanager
def tracing(held: Held) -> Iterator[None]:
    """What happens inside belongs to this delivery, as in a finisher."""
    token = current_tag.set(held.tag)
    try:
        yield
    finally:
        current_tag.reset(token)


# One result.


def test_a_result_ends_the_delivery_of_its_job(desk: Desk) -> None:
    """With its lifetime, and announced to who waits; the message is acknowledged and the slot free."""
    desk.hold("j")
    with publications(desk.queue, "j") as published:
        desk.succeed()
        eventually(lambda: published() == [desk.queue.result("j")], what="the announcement")
    assert desk.status() == "SUCCESS"
    assert 0 < int(desk.queue.client.ttl(keys.result("j"))) <= EXPIRES_SECONDS
    assert (len(desk.ledger), desk.queue.leftovers()) == (0, [])


def test_a_result_without_a_delivery_is_stored_as_celery_does(desk: Desk) -> None:
    """Of a job that another process holds, or of none: the rest of a chain that failed, say."""
    [held] = desk.hold("j")
    desk.succeed("other")
    assert desk.status("other") == "SUCCESS"
    assert desk.is_leased(held)


def test_without_leases_results_are_stored_as_celery_does(redis_url: str) -> None:
    """As in the app of somebody who only sends."""
    with Celery("results", set_as_current=False) as app:
        backend = FleetBackend(app=app, url=redis_url)
        backend.store_result("j", ANSWER, "SUCCESS")
        assert backend.get_task_meta("j")["result"] == ANSWER
        backend.client.connection_pool.disconnect()


@pytest.mark.parametrize("state", ["STARTED", "RETRY", "PROGRESS"])
def test_a_state_that_is_not_final_ends_nothing(desk: Desk, state: str) -> None:
    """The job goes on."""
    [held] = desk.hold("j")
    desk.backend.store_result("j", ValueError("later") if state == "RETRY" else {}, state)
    assert desk.status() == state
    assert desk.is_leased(held)
    assert desk.queue.client.hgetall(keys.job_record("j")) == {b"ended": b""}


@pytest.mark.parametrize(
    ("mark", "state"),
    [
        (lambda backend: backend.mark_as_done("j", ANSWER), "SUCCESS"),
        (lambda backend: backend.mark_as_failure("j", ValueError("no")), "FAILURE"),
        (lambda backend: backend.mark_as_revoked("j", "expired"), "REVOKED"),
    ],
)
def test_every_final_state_ends_the_delivery(desk: Desk, mark: Any, state: str) -> None:  # noqa: ANN401 - a function
    """Nothing is acknowledged without a result, an expired or a cancelled job included."""
    desk.hold("j")
    mark(desk.backend)
    assert desk.status() == state
    assert desk.queue.leftovers() == []


def test_a_stale_attempt_does_not_replace_the_result(desk: Desk) -> None:
    """Its lease is lost, though this process does not know it yet."""
    [held] = desk.hold("j")
    desk.take_over(held)
    desk.succeed()
    assert desk.queue.result("j") == answer("theirs")


def test_a_result_ends_the_delivery_that_is_traced(desk: Desk) -> None:
    """Not the younger one of the same id, which is another attempt."""
    [first] = desk.hold("j")
    [second] = desk.hold("j")
    with tracing(first):
        desk.succeed()
    assert (desk.is_leased(first), desk.is_leased(second)) == (False, True)


def test_a_result_of_another_job_ends_that_ones_delivery(desk: Desk) -> None:
    """Whatever is traced on this thread."""
    traced, other = desk.hold("traced", "other")
    with tracing(traced):
        desk.succeed("other")
    assert (desk.is_leased(traced), desk.is_leased(other)) == (True, False)


def test_a_poisoned_jobs_failure_leaves_its_dead_letter(desk: Desk) -> None:
    """In the same step: neither is there without the other."""
    [held] = desk.hold("j")
    held.verdict = Failed(FailureCode.POISONED, "it killed three engines")
    held.dead_letter = DeadLetter("j", '{"reason": "it killed three engines"}')
    desk.backend.mark_as_failure("j", ValueError("poisoned"))
    assert desk.status() == "FAILURE"
    assert desk.queue.client.hget(keys.DEAD_LETTERS, "j") == b'{"reason": "it killed three engines"}'


# A group.


def test_results_of_a_group_are_written_by_the_flush(desk: Desk) -> None:
    """Together; it says what became of each."""
    held = desk.hold("a", "b", "stale")
    desk.take_over(held[2])
    with desk.backend.grouped():
        for job_id in ("a", "b", "stale"):
            desk.succeed(job_id)
        assert (desk.status("a"), desk.status("b"), len(desk.ledger)) == (None, None, 3)
        statuses = desk.backend.flush()
    assert [statuses[one.tag].value for one in held] == ["stored", "stored", "fenced"]
    assert (desk.status("a"), desk.status("b")) == ("SUCCESS", "SUCCESS")
    assert (len(desk.ledger), desk.queue.leftovers()) == (0, [])


def test_a_group_belongs_to_its_thread(desk: Desk) -> None:
    """Each finisher has its own; a side thread has none."""
    desk.hold("held", "at-once")
    with desk.backend.grouped():
        desk.succeed("held")
        thread = threading.Thread(target=desk.succeed, args=("at-once",))
        thread.start()
        thread.join()
        assert (desk.status("held"), desk.status("at-once")) == (None, "SUCCESS")


def test_a_group_that_is_left_without_a_flush_is_dropped(desk: Desk) -> None:
    """Nothing of it leaks into the next group of the thread; the job stays held."""
    [held] = desk.hold("j")
    with desk.backend.grouped():
        desk.succeed()
    with desk.backend.grouped():
        assert desk.backend.flush() == {}
    assert desk.status() is None
    assert desk.ledger.get(held.tag) is held


def test_a_failed_flush_can_be_repeated(desk: Desk) -> None:
    """The first attempt has acted: the second finds the results its own, and says so."""
    [held] = desk.hold("j")
    desk.lose_replies(1)
    with desk.backend.grouped():
        desk.succeed()
        with pytest.raises(redis.exceptions.ConnectionError):
            desk.backend.flush()
        assert len(desk.ledger) == 1
        assert desk.backend.flush() == {held.tag: FinishStatus.STORED}
        assert desk.backend.flush() == {held.tag: FinishStatus.STORED}
    assert len(desk.ledger) == 0


# A chord.


def count_member(desk: Desk, job_id: str) -> None:
    """What Celery's tracer does at the end of a chord's member."""
    request = Context({"id": job_id, "group": "g", "group_index": 0, "chord": {"options": {"group_index": 0}}})
    desk.backend.on_chord_part_return(request, "SUCCESS", ANSWER)


def is_counted(desk: Desk) -> bool:
    """Whether the chord knows of its member."""
    return bool(desk.queue.client.keys("*g.j*"))


def test_the_results_of_a_chords_members_are_written_before_they_are_counted(desk: Desk) -> None:
    """The chord's body may start the moment the last member is counted."""
    [held] = desk.hold("j")
    with desk.backend.grouped(), tracing(held):
        desk.succeed()
        count_member(desk, "j")
        assert desk.status() == "SUCCESS"
        assert is_counted(desk)
        assert desk.backend.flush() == {held.tag: FinishStatus.STORED}


def test_a_stale_attempts_chord_member_is_not_counted(desk: Desk) -> None:
    """The attempt that has the lease counts it, with its own result."""
    [held] = desk.hold("j")
    desk.take_over(held)
    with desk.backend.grouped(), tracing(held):
        desk.succeed()
        count_member(desk, "j")
    assert not is_counted(desk)


def test_a_lost_connection_at_a_chords_member_is_retried(desk: Desk) -> None:
    """Celery would make a failed job of one whose chord part raises."""
    [held] = desk.hold("j")
    desk.lose_replies(1)
    with desk.backend.grouped(), tracing(held):
        desk.succeed()
        count_member(desk, "j")
    assert desk.status() == "SUCCESS"
    assert is_counted(desk)


# Publishing.


def test_publishing_a_task_subscribes_to_nothing(desk: Desk) -> None:
    """Ten thousand jobs would be ten thousand channels."""
    desk.backend.on_task_call(None, "j")
    assert desk.queue.client.pubsub_channels() == []
