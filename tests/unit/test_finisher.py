"""Recording outcomes: groups, the fence, a Redis that goes away, and the end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery.app.trace import build_tracer

from producer import keys
from tests.finisher_desk import Desk, desk_at
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.inference.answer import Later
from workers.pool import finisher
from workers.pool.finisher import FULL_GROUP_JOBS, MAX_GROUP_JOBS
from workers.pool.job import PoolJob

LINK_QUEUE = "after"
LOST_REPLY = redis.exceptions.ConnectionError("the reply was lost")


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """A desk at the session's server."""
    with desk_at(redis_url) as desk:
        yield desk


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own; what it was told survives it."""
    with EmbeddedServer(tmp_path / "valkey", free_port(), append_fsync="always") as server:
        yield server


def named(count: int) -> list[str]:
    """Job ids."""
    return [f"job-{number}" for number in range(count)]


def linked(desk: Desk, job_id: str) -> PoolJob:
    """A job with a link, traced by Celery's own tracer."""
    task = desk.app.tasks[keys.TASK_NAME]
    tracer = build_tracer(task.name, task, app=desk.app)
    after = desk.app.signature("any.task", queue=LINK_QUEUE)
    request = {"id": job_id, "callbacks": [dict(after)], "delivery_info": {}, "args": [], "kwargs": {}}
    job = desk.job(job_id, trace=lambda: (0, tracer(job_id, [], {}, request), 0.0))
    job.has_successors = True
    return job


def test_outcomes_that_wait_together_are_written_together(desk: Desk) -> None:
    """In groups of a bounded size; each job is told and done, in order, and nothing is held any more."""
    names = named(MAX_GROUP_JOBS + 6)
    desk.put(*(desk.job(name) for name in names))
    desk.finisher.start()
    eventually(lambda: len(desk.done) == len(names), what="all are done")
    assert desk.recorded.group_sizes == [MAX_GROUP_JOBS, 6]
    assert desk.told == names
    assert desk.done == names
    assert all(desk.stored(name).id == name for name in names)
    assert (len(desk.ledger), desk.queue.leftovers()) == (0, [])


def test_outcomes_that_come_soon_after_others_wait_for_company(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes at once; then a full group does, without the rest of the pause."""
    monkeypatch.setattr(finisher, "GROUP_PAUSE_SECONDS", 3600.0)
    names = named(1 + FULL_GROUP_JOBS)
    first, *others = [desk.job(name) for name in names]
    desk.finisher.start()
    desk.put(first)
    eventually(lambda: desk.done == names[:1], what="the first")
    for job in others:
        assert desk.done == names[:1]
        desk.put(job)
    eventually(lambda: desk.done == names, what="the group")
    assert desk.recorded.group_sizes == [1, FULL_GROUP_JOBS]


def test_where_little_runs_no_outcome_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends one job after another gets each answer at once."""
    monkeypatch.setattr(finisher, "GROUP_PAUSE_SECONDS", 3600.0)
    names = named(FULL_GROUP_JOBS - 1)
    jobs = [desk.job(name) for name in names]
    desk.finisher.start()
    for number, job in enumerate(jobs, start=1):
        desk.put(job)
        eventually(lambda until=number: desk.done == names[:until], what="the next one")
    assert desk.recorded.group_sizes == [1] * len(names)


def test_a_stopping_finisher_waits_for_no_company(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is recorded at once."""
    monkeypatch.setattr(finisher, "GROUP_PAUSE_SECONDS", 3600.0)
    names = named(2 * FULL_GROUP_JOBS)
    jobs = [desk.job(name) for name in names]
    desk.finisher.start()
    desk.put(jobs[0])
    eventually(lambda: desk.done == names[:1], what="the first")
    desk.put(*jobs[1:3])
    desk.finisher.stop(30.0)
    assert desk.done == names[:3]
    assert not desk.is_running


def test_celery_hears_of_a_job_only_when_its_result_is_in_redis(desk: Desk) -> None:
    """What Celery announces must be there to be fetched."""
    job, seen = desk.job("j"), list[str]()
    job.callbacks = replace(job.callbacks, finished=lambda _: seen.append(desk.stored("j").id))
    desk.put(job)
    desk.finisher.start()
    eventually(lambda: desk.done, what="the job is done")
    assert seen == ["j"]


# Leases.


def test_an_outcome_whose_lease_was_lost_is_fenced(desk: Desk) -> None:
    """Nothing is written, nobody is told but the pool; its batch-mates are recorded."""
    jobs = [desk.job("before"), desk.job("late"), desk.job("after")]
    desk.take_over(jobs[1])
    desk.put(*jobs)
    desk.finisher.start()
    eventually(lambda: len(desk.done + desk.lost) == 3, what="the three")
    assert desk.lost == ["late"]
    assert desk.done == desk.told == ["before", "after"]
    assert desk.queue.result("late") is None


def test_an_outcome_that_waits_while_its_lease_is_lost_is_not_recorded(desk: Desk) -> None:
    """The keeper noticed first: Celery's own writing would know of no fence."""
    job = desk.job("late")
    desk.take_over(job)
    desk.ledger.drop(job.tag)
    desk.put(job, desk.job("after"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["after"], what="the one behind it")
    assert desk.lost == ["late"]
    assert desk.traced == ["after"]
    assert desk.queue.result("late") is None


def test_a_job_whose_lease_was_lost_sends_no_links(desk: Desk) -> None:
    """They are sent before the result is written; the attempt that has the lease sends them."""
    late, good = linked(desk, "late"), linked(desk, "good")
    desk.take_over(late)
    desk.put(late, good)
    desk.finisher.start()
    eventually(lambda: desk.done == ["good"], what="the good one")
    assert desk.lost == ["late"]
    assert desk.backend.client.llen(LINK_QUEUE) == 1


def test_a_revocation_is_stored_before_celery_acknowledges(desk: Desk) -> None:
    """It does so at once, and the next claim takes that along: a result that waited for its group met no lease then."""
    job = desk.job("j")
    desk.queue.client.hset(desk.queue.keys.cancels, "j", "its token")

    def revoke() -> None:
        desk.backend.mark_as_revoked("j", "cancelled")
        desk.leases.acknowledge([job.tag])

    desk.put(desk.job("before"))
    desk.finisher.put(job, revoke)
    desk.finisher.start()
    eventually(lambda: desk.done == ["before"] and not len(desk.ledger), what="both are over")
    eventually(lambda: desk.backend.get_state("j") == "REVOKED", what="the result is there")
    assert not desk.queue.client.exists(desk.queue.keys.cancels)


def test_a_job_that_found_no_room_waits_in_redis_for_another_attempt(desk: Desk) -> None:
    """Under no lease, and with no result; its slot is free."""
    desk.finisher.put(desk.job("j"), Later(5.0, "no room"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["j"], what="it is put off")
    assert desk.put_off == [("j", "no room")]
    assert (desk.traced, desk.told, len(desk.ledger)) == ([], [], 0)
    assert desk.queue.result("j") is None
    desk.queue.come_due()
    [again] = desk.queue.store("two").claim(1, held=0).messages
    assert (again.delivery, again.retries, again.history[0]["event"]) == (1, 1, "no room")


# Redis goes away.


def test_a_lost_reply_repeats_the_writing_and_not_the_tracer(desk: Desk) -> None:
    """Each tracer runs once, though the group is written three times; the results are this attempt's."""
    names = named(3)
    desk.recorded.errors_to_raise = [LOST_REPLY, LOST_REPLY]
    desk.put(*(desk.job(name) for name in names))
    desk.finisher.start()
    eventually(lambda: len(desk.done) == 3, what="all are done")
    assert desk.recorded.group_sizes == [3, 3, 3]
    assert desk.traced == desk.told == desk.done == names
    assert desk.lost == []


def test_a_lost_reply_sends_no_link_callback_twice(desk: Desk) -> None:
    """With Celery's own tracer: the callback is in its queue once."""
    desk.recorded.errors_to_raise = [LOST_REPLY, LOST_REPLY]
    desk.put(linked(desk, "j"))
    desk.finisher.start()
    eventually(lambda: desk.done == ["j"], what="the job is done")
    assert desk.backend.client.llen(LINK_QUEUE) == 1
    assert desk.backend.get_task_meta("j")["status"] == "SUCCESS"


def test_outcomes_wait_until_the_server_is_back(server: EmbeddedServer) -> None:
    """None is lost, none is told to Celery before, no tracer runs twice."""
    names = named(5)
    with desk_at(server.url) as desk:
        jobs = [desk.job(name) for name in names]
        server.kill()
        desk.put(*jobs)
        desk.finisher.start()
        eventually(lambda: len(desk.recorded.group_sizes) >= 2, what="it tried more than once")
        assert desk.told == []
        server.start()
        eventually(lambda: desk.done == names, what="all are done")
        assert desk.traced == names
        assert all(desk.stored(name).id == name for name in names)


def test_a_job_that_found_no_room_is_put_off_when_the_server_is_back(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Once."""
    with desk_at(server.url) as desk:
        job = desk.job("j")
        server.kill()
        desk.finisher.put(job, Later(5.0, "no room"))
        desk.finisher.start()
        eventually(lambda: "Redis is away" in caplog.text, what="it tried")
        assert desk.put_off == []
        server.start()
        eventually(lambda: desk.done == ["j"], what="it is put off")
        assert desk.put_off == [("j", "no room")]
        assert desk.queue.client.zcard(desk.queue.keys.delayed) == 1


def test_outcomes_that_end_after_a_server_restart_are_written(server: EmbeddedServer) -> None:
    """A connection that was kept and is dead now does no harm."""
    with desk_at(server.url) as desk:
        before, meanwhile = desk.job("before"), desk.job("meanwhile")
        desk.finisher.start()
        desk.put(before)
        eventually(lambda: desk.done == ["before"], what="the first is done")
        server.kill()
        desk.put(meanwhile)
        server.start()
        eventually(lambda: desk.done == ["before", "meanwhile"], what="the second is done")
        assert desk.stored("before").id == "before"
        assert desk.stored("meanwhile").id == "meanwhile"


# The end.


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
    """The thread ends, says so, and tells nobody that the jobs are done: they stay held, to be handed back."""
    with desk_at(server.url) as desk:
        jobs = [desk.job(name) for name in named(MAX_GROUP_JOBS + 1)]
        server.kill()
        desk.put(*jobs)
        desk.finisher.start()
        eventually(lambda: desk.recorded.group_sizes, what="it tried")
        desk.finisher.stop(0.2)
        eventually(lambda: not desk.is_running, what="the thread ended")
        assert desk.told == desk.done == []
        assert len(desk.ledger) == MAX_GROUP_JOBS + 1
        assert f"{MAX_GROUP_JOBS} outcomes not recorded" in caplog.text
        assert "1 outcomes not recorded" in caplog.text
