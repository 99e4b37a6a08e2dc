"""What a server says about itself, and what the doctor makes of it."""

from typing import Any

import pytest

from producer.doctor import Finding, Level, ServerFacts, judge_server

INFO = {"redis_version": "7.2.4", "role": "master", "used_memory": 2**20, "maxmemory": 2**30, "connected_slaves": 0}
CONFIG = {
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "always",
    "min-replicas-to-write": "0",
}


def finding(
    subject: str, info: dict[str, Any], config: dict[str, str] | None = None, clock_offset_seconds: float = 0.0
) -> Finding:
    """The one about ``subject``, of a good server but for what is given."""
    findings = judge_server(ServerFacts(INFO | info, CONFIG | (config or {}), clock_offset_seconds))
    [found] = [each for each in findings if each.subject == subject]
    return found


def test_a_good_server_is_ok_in_every_respect() -> None:
    """One finding each, in the order of what to put right first."""
    findings = judge_server(ServerFacts(INFO, CONFIG))

    assert {found.level for found in findings} == {Level.OK}
    assert [found.subject for found in findings] == [
        "version",
        "role",
        "maxmemory-policy",
        "memory",
        "persistence",
        "replication",
        "clock",
    ]


@pytest.mark.parametrize(
    ("info", "level", "words"),
    [
        ({"redis_version": "6.2.0"}, Level.OK, "Redis 6.2.0"),
        ({"redis_version": "10.0.1"}, Level.OK, "Redis 10.0.1"),
        ({"redis_version": "6.0.16"}, Level.REFUSED, "needs 6.2"),
        ({"redis_version": "5.9"}, Level.REFUSED, "needs 6.2"),
        ({"valkey_version": "9.1.2"}, Level.OK, "Valkey 9.1.2 (as Redis 7.2.4)"),
        ({"redis_version": "unknown"}, Level.WARNING, "does not tell"),
    ],
)
def test_the_version_is_named_and_must_be_6_2_or_later(info: dict[str, Any], level: Level, words: str) -> None:
    """Valkey goes by the Redis that it is compatible with."""
    found = finding("version", info)
    assert (found.level, words in found.sentence) == (level, True)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl"])
def test_every_eviction_policy_is_refused_with_the_line_to_type(policy: str) -> None:
    """Those of volatile keys too: results and records have lifetimes."""
    found = finding("maxmemory-policy", {}, {"maxmemory-policy": policy})

    assert found.level is Level.REFUSED
    assert policy in found.sentence
    assert "CONFIG SET maxmemory-policy noeviction" in found.sentence


def test_a_replica_is_refused_and_names_its_primary() -> None:
    """It takes no writes."""
    found = finding("role", {"role": "slave", "master_host": "10.0.0.1", "master_port": 6379})
    assert (found.level, "10.0.0.1:6379" in found.sentence) == (Level.REFUSED, True)


@pytest.mark.parametrize(
    ("used", "limit", "level"),
    [(10, 0, Level.WARNING), (89, 100, Level.OK), (90, 100, Level.WARNING), (100, 100, Level.WARNING)],
)
def test_memory_is_a_warning_from_nine_tenths(used: int, limit: int, level: Level) -> None:
    """So is no limit at all."""
    assert finding("memory", {"used_memory": used, "maxmemory": limit}).level is level


@pytest.mark.parametrize(
    ("info", "config", "level", "words"),
    [
        ({}, {"appendfsync": "always"}, Level.OK, "no accepted job is lost"),
        ({}, {"appendfsync": "everysec"}, Level.OK, "up to 1 s of accepted jobs"),
        ({}, {"appendfsync": "no"}, Level.WARNING, "kernel"),
        ({}, {"appendfsync": ""}, Level.OK, "could not be read"),
        ({}, {"appendonly": "no"}, Level.WARNING, "since its last snapshot is lost"),
        ({"aof_last_write_status": "ok"}, {}, Level.OK, "no accepted job"),
        ({"aof_last_write_status": "err"}, {}, Level.REFUSED, "disk full"),
    ],
)
def test_what_a_crash_loses_is_said(info: dict[str, Any], config: dict[str, str], level: Level, words: str) -> None:
    """And a file that cannot be written is refused."""
    found = finding("persistence", info, config)
    assert (found.level, words in found.sentence) == (level, True)


@pytest.mark.parametrize(
    ("replicas", "required", "level"),
    [(0, "0", Level.OK), (1, "0", Level.WARNING), (2, "1", Level.OK), (1, "set", Level.OK)],
)
def test_replicas_that_no_write_waits_for_are_a_warning(replicas: int, required: str, level: Level) -> None:
    """Without replicas there is nothing to wait for."""
    found = finding("replication", {"connected_slaves": replicas}, {"min-replicas-to-write": required})
    assert found.level is level


@pytest.mark.parametrize(
    ("offset_seconds", "level", "words"),
    [
        (0.9, Level.OK, "within 1 s"),
        (-1.0, Level.OK, "within 1 s"),
        (3.21, Level.WARNING, "3.2 s ahead of"),
        (-120.0, Level.WARNING, "120.0 s behind"),
    ],
)
def test_clocks_may_differ_by_a_second(offset_seconds: float, level: Level, words: str) -> None:
    """Beyond that, deadlines are not what their makers think."""
    found = finding("clock", {}, clock_offset_seconds=offset_seconds)
    assert (found.level, words in found.sentence) == (level, True)


def test_what_can_not_be_read_is_a_warning_and_no_refusal() -> None:
    """A managed server may hide it."""
    levels = {found.subject: found.level for found in judge_server(ServerFacts(INFO, {}))}
    assert (levels["maxmemory-policy"], levels["persistence"]) == (Level.WARNING, Level.WARNING)
