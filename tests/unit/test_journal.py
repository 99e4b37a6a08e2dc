"""Job records: what the worker writes into them, and what happens while Redis is away."""

import threading
from collections.abc import Iterator
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
    journal.job_started("j")
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
    journal.job_started("j")
    journal.job_finished("j", state)
    journal.stop(10.0)
    record = client.hgetall(keys.job_record("j"))
    assert (record["model"], record["worker"], record["state"]) == ("m", "w@test", state)
    assert 90 <= client.ttl(keys.job_record("j")) <= 100


def test_a_job_that_is_put_off_is_retrying(client: "redis.Redis") -> None:
    """And kept as long as it may take; its worker is the one that tried it."""
    journal = Journal(client, "w@test", LIFETIMES)
    journal.start()
    journal.job_started("j")
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
        journal.job_started("lost")
        eventually(lambda: "1 job states not recorded" in caplog.text, what="the warning")
        with server:
            journal.job_started("kept")
            journal.stop(10.0)
            assert client.exists(keys.job_record("kept")) == 1
            assert client.exists(keys.job_record("lost")) == 0
