"""Outcomes that cannot be recorded, and those that are not recorded because nobody wants them any more."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from producer.contract import FailureCode
from tests.finisher_desk import Desk, desk_at
from tests.waiting import eventually
from workers.inference.classify import Failed


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """A desk at the session's server."""
    with desk_at(redis_url) as desk:
        yield desk


def test_an_outcome_that_cannot_be_recorded_goes_back_alone(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """As a suspect, counted; its batch-mates are recorded, the thread lives, the log has the reason."""

    def fail() -> None:
        raise ValueError("nothing that waiting mends")

    desk.put(desk.job("before"), desk.job("bad", trace=fail), desk.job("after"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["before", "after"], what="its mates are done")
    assert desk.aborted == [("bad", "given_back")]
    assert desk.lost == ["bad"]
    assert desk.told == ["before", "after"]
    assert "nothing that waiting mends" in caplog.text
    assert len(desk.ledger) == 0
    [again] = desk.queue.store("two").claim(8, held=0).messages
    assert (again.delivery, again.history[0]["event"]) == (2, "its outcome could not be recorded")
    desk.put(desk.job("later"))
    eventually(lambda: desk.done == ["before", "after", "later"], what="the thread lives")


@pytest.mark.parametrize("error", [redis.exceptions.ConnectionError("no event"), ValueError("a bug in a receiver")])
def test_a_celery_that_fails_to_take_note_harms_no_other_job(
    desk: Desk, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The result is in Redis by then; only the event is missing."""

    def fail(_: object) -> None:
        raise error

    bad = desk.job("bad")
    bad.callbacks = replace(bad.callbacks, finished=fail)
    desk.put(bad, desk.job("after"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["bad", "after"], what="both are done")
    assert desk.stored("bad").id == "bad"
    assert str(error) in caplog.text


def test_an_error_of_the_pool_itself_does_not_end_the_thread(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong beside the recording: it is logged, and the group's jobs are given up."""
    desk.put(desk.job("harmful"))
    desk.finisher.start()
    eventually(lambda: desk.aborted == [("harmful", "given_back")], what="the job is given up")
    desk.put(desk.job("after"))
    eventually(lambda: desk.done == ["harmful", "after"], what="the thread lives")
    assert "a bug in the pool" in caplog.text


def test_jobs_of_a_group_that_cannot_be_written_are_not_held_for_ever(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody renews their leases any more, so somebody else gets the jobs: they stayed under lease until the end."""
    desk.recorded.errors_to_raise = [redis.exceptions.ConnectionError("once"), ValueError("nothing that waiting mends")]
    desk.put(desk.job("a"), desk.job("b"))
    desk.finisher.start()
    eventually(lambda: len(desk.ledger) == 0, what="nothing is held")
    assert desk.aborted == [("a", "given_back"), ("b", "given_back")]
    assert desk.told == desk.done == []
    assert "nothing that waiting mends" in caplog.text


# What nobody wants any more.


def test_the_outcome_of_a_job_that_was_given_up_is_not_recorded(desk: Desk) -> None:
    """Revoked between its answer and its recording: a result would replace the revocation."""
    unwanted = desk.job("unwanted")
    unwanted.is_dead = True
    desk.put(unwanted, desk.job("wanted"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["wanted"], what="the other is done")
    assert (desk.traced, desk.told, desk.lost) == (["wanted"], ["wanted"], [])
    assert desk.queue.result("unwanted") is None


def test_a_revocation_that_comes_behind_the_answer_changes_nothing(desk: Desk) -> None:
    """What is terminal stays; Celery's own writing spares a success only."""
    job = desk.job("j", trace=lambda: (1, desk.backend.mark_as_failure("j", ValueError("no"), None), 0.0))
    desk.finisher.put(job, Failed(FailureCode.INTERNAL, "no"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["j"], what="the failure")
    answered = desk.queue.result("j")
    desk.finisher.put(job, lambda: desk.backend.mark_as_revoked("j", "cancelled"))
    desk.put(desk.job("after"))
    eventually(lambda: desk.done == ["j", "after"], what="the one behind it")
    assert answered is not None
    assert desk.queue.result("j") == answered


def test_a_revocation_is_recorded_in_the_finishers_thread(desk: Desk) -> None:
    """It ends the delivery like any result; it is no outcome that Celery's tracer knows."""
    threads: list[str] = []

    def revoke() -> None:
        threads.append(threading.current_thread().name)
        desk.backend.mark_as_revoked("j", "cancelled")

    job = desk.job("j")
    job.is_dead = True
    desk.finisher.put(job, revoke)
    desk.finisher.start()
    eventually(lambda: len(desk.ledger) == 0, what="the end of the delivery")
    assert threads == ["finisher-0"]
    assert desk.backend.get_task_meta("j")["status"] == "REVOKED"
    assert desk.queue.leftovers() == []
    assert desk.traced == desk.done == []


def test_a_time_limits_report_is_made_in_the_finishers_thread(desk: Desk) -> None:
    """It writes to Redis, which the engine's thread must not wait for; it is no outcome of the job."""
    threads: list[str] = []
    desk.finisher.put(desk.job("j"), lambda: threads.append(threading.current_thread().name))
    desk.finisher.start()
    eventually(lambda: threads, what="the report")
    assert threads == ["finisher-0"]
    assert desk.traced == desk.done == []
