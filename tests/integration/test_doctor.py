"""``fleet doctor`` and the check that workers make, on real servers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from producer import Priority, Producer, keys
from producer.doctor import Level, check_server
from producer.queue_counts import QueueCounts, count_queues
from producer.registry import MOST_WAITING
from tests.burying import Undertaker
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def evicting(client: redis.Redis) -> Iterator[None]:
    """The session's server with an eviction policy, for one test."""
    client.config_set("maxmemory-policy", "allkeys-lru")
    yield
    client.config_set("maxmemory-policy", "noeviction")


def doctor(redis_url: str) -> subprocess.CompletedProcess[str]:
    """Run the command; what it says of this host is in ``test_doctor_host``."""
    environment = {**os.environ, "FLEET_REDIS_URL": redis_url}
    command = [sys.executable, "-m", "producer.cli", "doctor", "--redis-only"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def levels(client: redis.Redis) -> dict[str, Level]:
    """Every finding's, by its subject."""
    return {finding.subject: finding.level for finding in check_server(client)}


@pytest.mark.parametrize("decode_responses", [False, True])
def test_the_embedded_server_is_fit(redis_url: str, *, decode_responses: bool) -> None:
    """Whether or not the client decodes."""
    with redis.Redis.from_url(redis_url, decode_responses=decode_responses) as client:
        assert set(levels(client).values()) == {Level.OK}


def test_the_command_prints_a_line_per_finding_and_per_queue(redis_url: str) -> None:
    """And exits with 0."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
        producer.submit(model="m", prompt="x")
    run = doctor(redis_url)

    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "reachable"],
        ["ok", "version"],
        ["ok", "role"],
        ["ok", "maxmemory-policy"],
        ["ok", "memory"],
        ["ok", "persistence"],
        ["ok", "replication"],
        ["ok", "clock"],
        ["ok", "latency"],
        ["queue", "m"],
    ]
    assert lines[-1].endswith("1 waiting, 0 leased, 0 delayed, 0 suspect, 0 dead")


@pytest.mark.usefixtures("evicting")
def test_an_eviction_policy_is_refused_with_exit_code_1(redis_url: str, client: redis.Redis) -> None:
    """It drops jobs; the line to type is there."""
    run = doctor(redis_url)

    assert run.returncode == 1
    assert "refused  maxmemory-policy  allkeys-lru drops jobs" in run.stdout
    assert "CONFIG SET maxmemory-policy noeviction" in run.stdout
    assert levels(client)["maxmemory-policy"] is Level.REFUSED


@pytest.mark.usefixtures("evicting")
def test_where_config_is_forbidden_info_tells_nearly_as_much(client: redis.Redis, redis_url: str) -> None:
    """As on managed servers."""
    client.acl_setuser(
        "tenant", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys=["*"], reset=True
    )
    try:
        with redis.Redis.from_url(redis_url, username="tenant", password="any") as managed:  # noqa: S106 - none is set
            findings = {finding.subject: finding for finding in check_server(managed)}
    finally:
        client.acl_deluser("tenant")

    assert findings["maxmemory-policy"].level is Level.REFUSED
    assert findings["persistence"].level is Level.OK
    assert "could not be read" in findings["persistence"].sentence


def test_a_server_without_an_append_only_file_is_a_warning(client: redis.Redis) -> None:
    """It works, until it stops."""
    client.config_set("appendonly", "no")
    try:
        assert levels(client)["persistence"] is Level.WARNING
    finally:
        client.config_set("appendonly", "yes")


def test_a_full_server_is_a_warning(client: redis.Redis) -> None:
    """Jobs are refused, nothing is dropped."""
    client.config_set("maxmemory", client.info("memory")["used_memory"])
    try:
        assert levels(client)["memory"] is Level.WARNING
    finally:
        client.config_set("maxmemory", 0)


def test_a_replica_is_refused_and_its_primary_warned_of_writes_that_wait_for_none(
    client: redis.Redis, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A fail-over loses what the replica had not got."""
    with (
        EmbeddedServer(tmp_path, free_port()) as other,
        redis.Redis.from_url(other.url) as replica,
    ):
        replica.replicaof("127.0.0.1", str(redis_server.port))
        eventually(lambda: levels(client)["replication"] is Level.WARNING, what="the replica's connection")
        assert levels(replica)["role"] is Level.REFUSED
        client.config_set("min-replicas-to-write", 1)
        try:
            assert levels(client)["replication"] is Level.OK
        finally:
            client.config_set("min-replicas-to-write", 0)
    eventually(lambda: levels(client)["replication"] is Level.OK, what="the end of the replica's connection")


def test_a_server_that_is_not_there_is_refused_with_its_address_and_not_its_password() -> None:
    """One line."""
    port = free_port()
    run = doctor(f"redis://:secret@127.0.0.1:{port}/0")

    assert run.returncode == 1
    assert run.stdout.startswith("refused  reachable")
    assert f"127.0.0.1:{port}" in run.stdout
    assert "secret" not in run.stdout + run.stderr


def test_settings_that_are_wrong_are_the_one_finding() -> None:
    """Here an address that is none; what is configured wrongly cannot be looked at."""
    run = doctor("http://x")

    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.startswith("refused  settings          redis.url (environment FLEET_REDIS_URL): ")
    assert run.stdout.count("\n") == 1


def test_messages_are_counted_where_they_are(redis_url: str, client: redis.Redis) -> None:
    """Waiting over all lanes; dead also of a model that nobody knows any more."""
    with Producer(redis_url) as producer:
        for model in ("m", "gone", "idle"):
            producer.declare_model(model)
        producer.submit(model="gone", prompt="x")
        Undertaker(client, "gone").poison()
        producer.forget_model("gone")
        producer.submit(model="m", prompt="x")
        undertaker = Undertaker(client)
        undertaker.claim()
        for priority in Priority:
            producer.submit(model="m", prompt="x", priority=priority)
    client.zadd(keys.QueueKeys("m").delayed, {"3\na message": 1e12})
    client.rpush(keys.QueueKeys("m").suspects, json.dumps({}), json.dumps([]))

    assert [replace(counts, lanes=()) for counts in count_queues(client)] == [
        QueueCounts("gone", waiting=0, leased=0, delayed=0, suspect=0, dead=1, max_waiting=MOST_WAITING),
        QueueCounts("idle", waiting=0, leased=0, delayed=0, suspect=0, dead=0, max_waiting=MOST_WAITING),
        QueueCounts("m", waiting=4, leased=1, delayed=1, suspect=2, dead=0, max_waiting=MOST_WAITING),
    ]
