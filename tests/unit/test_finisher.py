"""Recording outcomes: groups, a Redis that goes away, outcomes that cannot be recorded, and the end."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.app.trace import build_tracer

from producer import keys
from tests.finisher_desk import Desk, desk_at
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.pool.finisher import MAX_GROUP_JOBS, Finished, Finisher
from workers.pool.job import Callbacks, PoolJob

LINK_QUEUE = "after"


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """A desk at the session's server."""
    with desk_at(redis_url) as desk:
        yield desk


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, not started."""
    server = EmbeddedServer(tmp_path / "valkey", free_port(), append_fsync="always")
    yield server
    server.stop()


def named(count: int) -> list[str]:
    """Job ids."""
    return [f"job-{number}" for number in range(count)]


def test_outcomes_that_wait_together_are_written_together(desk: Desk) -> None:
    """In groups of a bounded size; each job is told and done, in order."""
    names = named(MAX_GROUP_JOBS + 6)
    desk.put(*(desk.job(name) for name in names))
    desk.finisher.start()
    eventually(lambda: len(desk.done) == len(names), what="all are done")
    assert desk.backend.group_sizes == [MAX_GROUP_JOBS, 6]
    assert desk.told == names
    assert desk.done == names
    assert all(desk.stored(name).id == name for name in names)


def test_celery_hears_of_a_job_only_when_its_result_is_in_redis(desk: Desk) -> None:
    """The acknowledgement follows from what Celery hears: the other way round a crash would lose the answer."""
    job, seen = desk.job("j"), list[str]()

    def look(_: object) -> None:
        seen.append(desk.stored("j").id)

    job.callbacks = Callbacks(job.callbacks.trace, (), look, job.callbacks.timed_out)
    desk.put(job)
    desk.finisher.start()
    eventually(lambda: desk.done, what="the job is done")
    assert seen == ["j"]


def test_a_lost_reply_repeats_the_writing_and_not_the_tracer(desk: Desk) -> None:
    """Each tracer runs once, though the group is written three times."""
    names = named(3)
    desk.backend.replies_to_lose = 2
    desk.put(*(desk.job(name) for name in names))
    desk.finisher.start()
    eventually(lambda: len(desk.done) == 3, what="all are done")
    assert desk.backend.group_sizes == [3, 3, 3]
    assert desk.traced == desk.told == desk.done == names


def test_a_lost_reply_sends_no_link_callback_twice(desk: Desk) -> None:
    """With Celery's own tracer: the callback is in its queue once."""
    task = desk.app.tasks[keys.TASK_NAME]
    task.backend = desk.backend
    tracer = build_tracer(task.name, task, app=desk.app)
    after = desk.app.signature("any.task", queue=LINK_QUEUE)
    request = {"id": "j", "callbacks": [dict(after)], "delivery_info": {}, "args": [], "kwargs": {}}
    desk.backend.replies_to_lose = 2
    desk.put(desk.job("j", trace=lambda: (0, tracer("j", [], {}, request), 0.0)))
    desk.finisher.start()
    eventually(lambda: desk.done == ["j"], what="the job is done")
    assert desk.backend.client.llen(LINK_QUEUE) == 1
    assert desk.backend.get_task_meta("j")["status"] == "SUCCESS"


def test_outcomes_wait_until_the_server_is_back(server: EmbeddedServer) -> None:
    """None is lost, none is told to Celery before, no tracer runs twice."""
    names = named(5)
    with desk_at(server.url) as desk:
        desk.put(*(desk.job(name) for name in names))
        desk.finisher.start()
        eventually(lambda: len(desk.backend.group_sizes) >= 2, what="it tried more than once")
        assert desk.told == []
        server.start()
        eventually(lambda: desk.done == names, what="all are done")
        assert desk.traced == names
        assert all(desk.stored(name).id == name for name in names)


def test_outcomes_that_end_after_a_server_restart_are_written(server: EmbeddedServer) -> None:
    """A connection that was kept and is dead now does no harm."""
    with server, desk_at(server.url) as desk:
        desk.finisher.start()
        desk.put(desk.job("before"))
        eventually(lambda: desk.done == ["before"], what="the first is done")
        server.kill()
        desk.put(desk.job("meanwhile"))
        server.start()
        eventually(lambda: desk.done == ["before", "meanwhile"], what="the second is done")
        assert desk.stored("before").id == "before"
        assert desk.stored("meanwhile").id == "meanwhile"


def test_stopping_records_what_is_queued_and_ends_the_threads(desk: Desk) -> None:
    """A drain leaves nothing that was answered unrecorded."""
    names = named(MAX_GROUP_JOBS * 2 + 1)
    desk.put(*(desk.job(name) for name in names))
    desk.finisher.start()
    desk.finisher.stop(30.0)
    assert desk.done == names
    assert not desk.is_running


def test_a_stopping_finisher_gives_up_on_a_server_that_stays_away(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread ends, says so, and tells nobody that the jobs are done: they go back to the queue."""
    with desk_at(server.url) as desk:
        desk.put(*(desk.job(name) for name in named(MAX_GROUP_JOBS + 1)))
        desk.finisher.start()
        eventually(lambda: desk.backend.group_sizes, what="it tried")
        desk.finisher.stop(0.2)
        eventually(lambda: not desk.is_running, what="the thread ended")
        assert desk.told == desk.done == []
        assert f"{MAX_GROUP_JOBS} outcomes not recorded" in caplog.text
        assert "1 outcomes not recorded" in caplog.text


def test_an_outcome_that_cannot_be_recorded_is_left_unacknowledged_alone(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Its batch-mates are recorded, the thread lives, the log has the reason."""

    def fail() -> None:
        raise ValueError("nothing that waiting mends")

    desk.put(desk.job("before"), desk.job("bad", trace=fail), desk.job("after"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["before", "after"], what="its mates are done")
    assert desk.aborted == [("bad", "given_back")]
    assert desk.told == ["before", "after"]
    assert "nothing that waiting mends" in caplog.text
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
    bad.callbacks = Callbacks(bad.callbacks.trace, (), fail, bad.callbacks.timed_out)
    desk.put(bad, desk.job("after"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["bad", "after"], what="both are done")
    assert desk.stored("bad").id == "bad"
    assert str(error) in caplog.text


def test_an_error_of_the_pool_itself_does_not_end_the_thread(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong beside the recording: it is logged, and the group's jobs are left to the queue."""
    with desk_at(redis_url) as desk:
        calls: list[str] = []

        def on_done(job: PoolJob, _: Finished) -> None:
            calls.append(job.delivery.job_id)
            if job.delivery.job_id == "bad":
                raise RuntimeError("a bug in the pool")

        desk.finisher = Finisher(desk.backend, 1, on_done)
        desk.put(desk.job("bad"))
        desk.finisher.start()
        eventually(lambda: desk.aborted == [("bad", "given_back")], what="the job is left to the queue")
        desk.put(desk.job("after"))
        eventually(lambda: calls == ["bad", "after"], what="the thread lives")
        assert "a bug in the pool" in caplog.text


def test_celery_is_not_told_of_a_job_that_nobody_wants_any_more(desk: Desk) -> None:
    """Revoked between its answer and its recording: Celery has acknowledged it already."""
    unwanted = desk.job("unwanted")
    unwanted.is_dead = True
    desk.put(unwanted, desk.job("wanted"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["unwanted", "wanted"], what="both are done")
    assert desk.told == ["wanted"]


def test_a_time_limits_report_is_made_in_the_finishers_thread(desk: Desk) -> None:
    """It writes to Redis, which the engine's thread must not wait for; it is no outcome of the job."""
    threads: list[str] = []
    desk.finisher.put(desk.job("j"), lambda: threads.append(threading.current_thread().name))
    desk.finisher.start()
    eventually(lambda: threads, what="the report")
    assert threads == ["finisher-0"]
    assert desk.traced == desk.done == []
