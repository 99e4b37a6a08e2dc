"""Job records: what the worker writes into them, and what happens while Redis is away."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from producer import keys
from producer.jobs import JobState
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.journal import MAX_GROUP_JOBS, Journal, Lifetimes

LIFETIMES = Lifetimes(unfinished_seconds=1000, finished_seconds=100)


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of the session's server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def test_a_job_that_starts_is_running_on_its_worker(client: "redis.Redis") -> None:
    """With the time, and kept as long as it may take."""
    journal = Journal(client, "w@test", LIFETIMES)
    journal.job_started("j", 1, 5.0)
    journal.start()
    journal.stop(10.0)
    record = client.hgetall(keys.job_record("j"))
    assert record["state"] == JobState.RUNNING
    assert record["worker"] == "w@test"
    assert float(record["started_at"]) > 0
    assert 990 <= client.ttl(keys.job_record("j")) <= 1000


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_finished_job_keeps_its_record_as_long_as_its_result(client: "redis.Redis", state: JobState) -> None:
    """What the producer wrote into the record stays."""
    client.hset(keys.job_record("j"), "model", "m")
    journal = Journal(client, "w@test", LIFETIMES)
    journal.start()
    journal.job_started("j", 1, 5.0)
    journal.job_finished("j", state)
    journal.stop(10.0)
    record = client.hgetall(keys.job_record("j"))
    assert (record["model"], record["worker"], record["state"]) == ("m", "w@test", state)
    assert 90 <= client.ttl(keys.job_record("j")) <= 100


def test_a_job_that_is_put_off_is_retrying(client: "redis.Redis") -> None:
    """And kept as long as it may take; its worker is the one that tried it."""
    journal = Journal(client, "w@test", LIFETIMES)
    journal.start()
    journal.job_started("j", 1, 5.0)
    journal.job_put_off("j")
    journal.stop(10.0)
    record = client.hgetall(keys.job_record("j"))
    assert (record["state"], record["worker"]) == (JobState.RETRYING, "w@test")
    assert 990 <= client.ttl(keys.job_record("j")) <= 1000


def test_stopping_writes_what_is_queued(client: "redis.Redis") -> None:
    """More than one group, and the thread ends."""
    count = 2 * MAX_GROUP_JOBS + 3
    journal = Journal(client, "w@test", LIFETIMES)
    for number in range(count):
        journal.job_finished(str(number), JobState.SUCCEEDED)
    journal.start()
    journal.stop(30.0)
    assert client.dbsize() == count
    assert "journal" not in {thread.name for thread in threading.enumerate()}


def test_while_the_server_is_away_states_are_dropped_and_later_ones_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Advisory: the log says how many, and the thread lives."""
    server = EmbeddedServer(tmp_path, free_port())
    with redis.Redis.from_url(server.url) as client:
        journal = Journal(client, "w@test", LIFETIMES)
        journal.start()
        journal.job_started("lost", 1, 5.0)
        eventually(lambda: "1 job states not recorded" in caplog.text, what="the warning")
        with server:
            journal.job_started("kept", 1, 5.0)
            journal.stop(10.0)
            assert client.exists(keys.job_record("kept")) == 1
            assert client.exists(keys.job_record("lost")) == 0


def test_a_job_of_one_attempt_costs_its_record_nothing_more(client: "redis.Redis") -> None:
    """Earlier attempts are written where there were any, at the next start or at the end without one."""
    journal = Journal(client, "w@test", LIFETIMES)
    journal.start()
    journal.job_started("one", 1, 5.0)
    journal.job_started("two", 2, 5.0, "the first")
    journal.job_finished("two", JobState.SUCCEEDED)
    journal.job_finished("dead", JobState.FAILED, "all of them")
    journal.stop(10.0)
    assert client.hgetall(keys.job_record("one")).keys() == {"state", "worker", "started_at", "attempt"}
    assert client.hget(keys.job_record("two"), "attempts") == "the first"
    assert client.hget(keys.job_record("dead"), "attempts") == "all of them"


def written(client: "redis.Redis", *calls: Callable[[Journal], None], worker: str = "w@test") -> None:
    """Let a journal write each of these by itself."""
    for call in calls:
        journal = Journal(client, worker, LIFETIMES)
        journal.start()
        call(journal)
        journal.stop(10.0)


def test_a_job_that_is_handed_back_waits_again(client: "redis.Redis") -> None:
    """Unless another worker was faster: then its start stays, and who gave it up is noted beside it."""
    written(
        client, lambda journal: journal.job_started("j", 1, 5.0), lambda journal: journal.job_handed_back("j", 1, 5.0)
    )
    record = client.hgetall(keys.job_record("j"))
    assert record["state"] == JobState.QUEUED
    assert json.loads(record["handed_back"])["end"] == "handed_back"
    written(client, lambda journal: journal.job_started("j", 1, 6.0), worker="other@test")
    written(client, lambda journal: journal.job_handed_back("j", 1, 5.5))
    record = client.hgetall(keys.job_record("j"))
    assert (record["state"], record["worker"]) == (JobState.RUNNING, "other@test")
    assert [json.loads(line)["begun_at"] for line in record["handed_back"].split("\n")] == [5.0, 5.5]


def test_the_list_of_what_was_handed_back_is_bounded_and_makes_no_record(client: "redis.Redis") -> None:
    """The latest twenty; a record that is gone stays so."""
    written(client, lambda journal: journal.job_handed_back("gone", 1, 5.0))
    assert client.exists(keys.job_record("gone")) == 0
    client.hset(keys.job_record("j"), "model", "m")
    written(client, *(partial(Journal.job_handed_back, job_id="j", attempt=1, started_at=at) for at in range(25)))
    lines = (client.hget(keys.job_record("j"), "handed_back") or "").split("\n")
    assert [json.loads(line)["begun_at"] for line in lines] == list(range(5, 25))
