"""Leases on running workers: whatever becomes of a worker or its engine, each job is answered once."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from producer import InferenceFailed, Producer
from producer.contract import FailureCode, Priority
from producer.jobs import JobState, Submission
from producer.keys import QueueKeys, lane, result
from tests.running import RunningFleet, simulated
from tests.waiting import eventually

pytestmark = pytest.mark.slow

LONG = {"max_tokens": 200, "temperature": 0.0, "ignore_eos": True}
SIDE_KEYS = ("leases", "leased", "redelivery", "suspects", "isolation", "delayed", "cancels")


def fleet_at(redis_url: str, folder: Path, *, seconds_per_token: float = 0.01, **options: object) -> RunningFleet:
    """A worker with short leases; ``options`` are settings with ``__`` for the dot."""
    folder.mkdir(exist_ok=True)
    fleet = simulated(redis_url, folder, seconds_per_token=seconds_per_token)
    settings = {name.replace("__", "."): value for name, value in options.items()}
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 1.0} | settings
    return fleet


def submitted(producer: Producer, count: int, **fields: object) -> list[Submission]:
    """Jobs of two seconds each, unless told otherwise."""
    return [producer.submit(**{"model": "sim", "prompt": f"job {n}", "sampling": LONG} | fields) for n in range(count)]


def nothing_is_left(client: "redis.Redis") -> bool:
    """No lane, lease or side key holds anything."""
    names = [getattr(QueueKeys("sim"), name) for name in SIDE_KEYS] + [lane("sim", priority) for priority in Priority]
    return client.exists(*names) == 0


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """The server that the fleets share."""
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Not let run meanwhile (SIGSTOP)."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_jobs_of_a_killed_worker_are_answered_by_another(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """Kill -9 with no restart: the other worker takes over what the dead one held, and nobody's answer changes."""
    with (
        fleet_at(
            redis_url, tmp_path / "a", seconds_per_token=0.1, worker__restart_backoff_initial_seconds=60.0
        ) as doomed,
        Producer(redis_url) as producer,
    ):
        jobs = submitted(producer, 20)
        eventually(lambda: doomed.metric("fleet_active_jobs") == 20, what="all jobs run")
        with fleet_at(redis_url, tmp_path / "b") as other:
            doomed.worker_processes()[0].kill()
            results = [producer.result(job, timeout_seconds=60) for job in jobs]
            assert {answered.attempt for answered in results} == {2}
            assert other.metric("fleet_leases_reaped_total") == 20
    eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_an_attempt_that_lost_its_lease_changes_nothing(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """An old attempt publishing after takeover: frozen for longer than its lease, it woke up and overwrote the answer.

    Here what it does then is fenced, its slots are freed, and it works on.
    """
    with fleet_at(redis_url, tmp_path / "a", seconds_per_token=0.1) as frozen, Producer(redis_url) as producer:
        jobs = submitted(producer, 5)
        eventually(lambda: frozen.metric("fleet_active_jobs") == 5, what="all jobs run")
        with fleet_at(redis_url, tmp_path / "b") as other:
            with stopped(frozen.worker_processes()[0]):
                answers = [producer.result(job, timeout_seconds=60) for job in jobs]
            stored = [client.get(result(job.job_id)) for job in jobs]
            eventually(lambda: frozen.log.read_text().count("action=lease_lost") == 5, what="all leases are lost")
            eventually(lambda: frozen.metric("fleet_active_jobs") == 0, what="its slots are free")
            assert [client.get(result(job.job_id)) for job in jobs] == stored
            assert len({answered.worker for answered in answers}) == 1
            assert other.stop() == 0
        assert producer.result(submitted(producer, 1)[0], timeout_seconds=60).attempt == 1


def test_a_hung_engine_loses_its_jobs_and_its_worker_starts_again(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """The core process is stopped, not dead: no health check is answered, and the jobs go on elsewhere."""
    with (
        fleet_at(redis_url, tmp_path, seconds_per_token=0.03, engine__hang_timeout_seconds=2.0) as fleet,
        Producer(redis_url) as producer,
    ):
        jobs = submitted(producer, 10)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 10, what="all jobs run")
        fleet.worker_processes()[0].children()[0].suspend()
        assert {producer.result(job, timeout_seconds=60).attempt for job in jobs} == {2}
        assert "did not answer a health check within 2 s" in fleet.log.read_text()
    eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_the_prompt_that_kills_engines_is_found_and_the_others_are_answered(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """Requeue for ever: one prompt took down engine after engine, and its batch-mates' attempts with it.

    Here what an engine held at its death is run apart, in small groups and then alone, and the culprit becomes a dead
    letter.
    """
    with fleet_at(redis_url, tmp_path, seconds_per_token=0.005) as fleet, Producer(redis_url) as producer:
        jobs = submitted(producer, 20)
        poison = producer.submit(model="sim", prompt="poison", metadata={"simulate": "kills_engine"})
        assert all(producer.result(job, timeout_seconds=90) for job in jobs)
        with pytest.raises(InferenceFailed, match="died under it 3 times") as failed:
            producer.result(poison, timeout_seconds=60)
        assert failed.value.code is FailureCode.POISONED
        letter = producer.dead_letter(poison.job_id)
        assert [attempt.delivery for attempt in letter.history] == [1, 2, 3]
        assert all("the engine died" in attempt.event for attempt in letter.history)
        assert len([line for line in fleet.log.read_text().splitlines() if "action=engine_died" in line]) == 3
        eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_what_is_no_message_goes_to_the_dead_letters_and_the_worker_lives(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """Stock kombu ends the worker on the first of these, and the element is gone."""
    garbage = [b"not json", b"[1, 2]", b"{}", b'{"properties": {}}', b"\xff\xfe"]
    with fleet_at(redis_url, tmp_path) as fleet, Producer(redis_url) as producer:
        worker = fleet.worker_processes()[0]
        client.lpush(lane("sim", Priority.NORMAL), *garbage)
        assert producer.result(submitted(producer, 1)[0], timeout_seconds=60)
        eventually(lambda: len(producer.dead_letters()) == len(garbage), what="all are dead letters")
        assert sorted(letter.message for letter in producer.dead_letters()) == sorted(garbage)
        assert worker.is_running()
        assert nothing_is_left(client)


def test_a_running_job_is_cancelled_and_its_slot_is_free(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """The caller hears of it at once; the engine's slot is free; nothing is left of it."""
    with fleet_at(redis_url, tmp_path, engine__options__max_num_seqs=1) as fleet, Producer(redis_url) as producer:
        running, waiting = submitted(producer, 2, sampling=LONG | {"max_tokens": 2000})
        eventually(lambda: producer.status(running).state is JobState.RUNNING, what="it runs")
        producer.cancel(running)
        producer.cancel(waiting)
        for job in (running, waiting):
            with pytest.raises(InferenceFailed, match="cancelled"):
                producer.result(job, timeout_seconds=1)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="the slot is free")
        assert producer.result(submitted(producer, 1)[0], timeout_seconds=60)
        assert {producer.status(job).state for job in (running, waiting)} == {JobState.CANCELLED}
        eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_a_cancellation_survives_a_lost_message_and_a_restart(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """Revoked ids lived in workers' memory elsewhere: a restart forgot them. Here the note in Redis is what counts."""
    with fleet_at(redis_url, tmp_path) as fleet, Producer(redis_url) as producer:
        job = submitted(producer, 1, sampling=LONG | {"max_tokens": 2000})[0]
        eventually(lambda: producer.status(job).state is JobState.RUNNING, what="it runs")
        # As a cancellation whose announcement nobody heard.
        client.hset(QueueKeys("sim").cancels, job.job_id, job.submission_token)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="the slot is free")
        with pytest.raises(InferenceFailed, match="cancelled"):
            producer.result(job, timeout_seconds=5)
    with Producer(redis_url) as producer:
        queued = submitted(producer, 1)[0]
        client.hset(QueueKeys("sim").cancels, queued.job_id, queued.submission_token)
        with fleet_at(redis_url, tmp_path), pytest.raises(InferenceFailed, match="cancelled"):
            producer.result(queued, timeout_seconds=60)
    eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_a_cancellation_touches_no_other_submission_of_the_same_id(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """Cancel of an old submission killing a new one: cancels went by the reused id. Here the token decides."""
    with fleet_at(redis_url, tmp_path), Producer(redis_url) as producer:
        job = submitted(producer, 1)[0]
        eventually(lambda: producer.status(job).state is JobState.RUNNING, what="it runs")
        announcement = {"job_id": job.job_id, "submission_token": "of an earlier submission"}
        client.hset(QueueKeys("sim").cancels, job.job_id, announcement["submission_token"])
        assert client.publish(QueueKeys("sim").cancelled_channel, json.dumps(announcement)) == 1
        assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 200


def test_a_second_sigterm_hands_back_at_once_and_counts_nothing(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """The first one waits for running jobs; the second one does not: they are elsewhere while this one still ends."""
    fleet = fleet_at(redis_url, tmp_path, seconds_per_token=0.05)
    with fleet, Producer(redis_url) as producer:
        jobs = submitted(producer, 10)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 10, what="all jobs run")
        worker = fleet.worker_processes()[0]
        worker.send_signal(signal.SIGTERM)
        eventually(lambda: '"draining"' in fleet.page("/ready")[1], what="it drains")
        worker.send_signal(signal.SIGTERM)
        # Jobs that were waited for would end within 10 s, and never be back.
        eventually(lambda: client.llen(lane("sim", Priority.NORMAL)) == 10, what="all are back")
        # They are back before the worker says so.
        eventually(lambda: "10 unfinished jobs go back to the queue" in fleet.log.read_text(), what="the log's line")
        first = json.loads(client.lindex(lane("sim", Priority.NORMAL), -1) or b"{}")
        assert first["headers"]["id"] == jobs[0].job_id
        # The supervisor starts the worker again.
        assert {producer.result(job, timeout_seconds=60).attempt for job in jobs} == {1}


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM]])
def test_a_fleet_in_a_hurry_hands_back_what_runs(
    redis_url: str, client: "redis.Redis", tmp_path: Path, signals: list[signal.Signals]
) -> None:
    """Asked of the supervisor: SIGQUIT, or SIGTERM twice; the drain budget of 30 s is not waited for."""
    fleet = fleet_at(redis_url, tmp_path, seconds_per_token=1.0)
    with fleet, Producer(redis_url) as producer:
        submitted(producer, 10)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 10, what="all jobs run")
        assert fleet.process is not None
        asked_at = time.monotonic()
        for number in signals:
            fleet.process.send_signal(number)
            # One signal of a kind is pending at a time: the second is sent when the first was taken.
            eventually(lambda: '"ready"' not in fleet.page("/ready")[1], what="it stops")
        assert fleet.process.wait(25) == 0
        assert time.monotonic() - asked_at < 20
        assert client.llen(lane("sim", Priority.NORMAL)) == 10
        assert client.exists(QueueKeys("sim").leases, QueueKeys("sim").redelivery) == 0


def test_a_job_that_found_no_room_comes_back_later(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """A reservation leaked on retry wedging a queue: here a job that is put off holds no slot and no lease."""
    with fleet_at(redis_url, tmp_path) as fleet, Producer(redis_url) as producer:
        job = producer.submit(model="sim", prompt="busy", metadata={"simulate": "overloaded_once"})
        eventually(lambda: producer.status(job).state is JobState.RETRYING, what="it waits")
        assert client.zcard(QueueKeys("sim").delayed) == 1
        assert fleet.metric("fleet_active_jobs") == 0
        assert producer.result(job, timeout_seconds=60).attempt == 2
        eventually(lambda: nothing_is_left(client), what="nothing is left")
