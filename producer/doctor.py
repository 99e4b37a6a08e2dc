"""Whether a Redis server is fit to be the fleet's: what it says about itself, judged."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

MIN_VERSION: Final = (6, 2)
MAX_CLOCK_DIFFERENCE_SECONDS: Final = 1.0
FULL_SHARE: Final = 0.9

_SETTINGS: Final = ("maxmemory-policy", "appendonly", "appendfsync", "min-replicas-to-write")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """The fleet works; the sentence says what can happen."""
    REFUSED = "refused"
    """Jobs, results or leases would be lost, or nothing can be written."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says about itself."""

    info: Mapping[str, Any]
    """``INFO``, as redis-py reads it."""
    config: Mapping[str, str]
    """Settings by name, as far as ``CONFIG GET`` is allowed or ``INFO`` tells them."""
    clock_offset_seconds: float = 0.0
    """How far the server's clock is ahead of this machine's."""


def check_server(client: Redis) -> list[Finding]:
    """Ask a server about itself and judge it.

    Raises:
        RedisError: it could not be reached, or refused ``INFO``.
    """
    return judge_server(server_facts(client))


def server_facts(client: Redis) -> ServerFacts:
    """Ask a server about itself.

    Raises:
        RedisError: it could not be reached, or refused ``INFO``.
    """
    before = time.time()
    seconds, microseconds = client.time()
    here = (before + time.time()) / 2
    info: dict[str, Any] = client.info()
    return ServerFacts(info, _settings_by_info(info) | _settings(client), seconds + microseconds / 1e6 - here)


def _settings(client: Redis) -> dict[str, str]:
    try:
        # One by one: before version 7 a server takes one pattern.
        answers: list[dict[Any, Any]] = [client.config_get(name) for name in _SETTINGS]
    except ResponseError:
        return {}  # managed servers forbid it, and INFO tells most of it
    return {_text(name): _text(value) for answer in answers for name, value in answer.items()}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _settings_by_info(info: Mapping[str, Any]) -> dict[str, str]:
    settings = {}
    if "maxmemory_policy" in info:
        settings["maxmemory-policy"] = str(info["maxmemory_policy"])
    if "aof_enabled" in info:
        settings["appendonly"] = "yes" if info["aof_enabled"] else "no"
    if "min_slaves_good_slaves" in info:  # only there when the setting is not 0
        settings["min-replicas-to-write"] = "set"
    return settings


def judge_server(facts: ServerFacts) -> list[Finding]:
    """What there is to say about a server; one finding per subject."""
    return [judge(facts) for judge in _JUDGES]


def _version(facts: ServerFacts) -> Finding:
    spoken = str(facts.info.get("redis_version", ""))
    name = f"Redis {spoken}"
    if "valkey_version" in facts.info:
        name = f"Valkey {facts.info['valkey_version']} (as Redis {spoken})"
    numbers = re.match(r"(\d+)\.(\d+)", spoken)
    if numbers is None:
        return Finding(Level.WARNING, "version", "the server does not tell its version; the fleet needs 6.2 or later")
    if (int(numbers[1]), int(numbers[2])) < MIN_VERSION:
        return Finding(Level.REFUSED, "version", f"{name}; the fleet needs 6.2 or later")
    return Finding(Level.OK, "version", name)


def _role(facts: ServerFacts) -> Finding:
    if facts.info.get("role") == "slave":
        where = f"{facts.info.get('master_host')}:{facts.info.get('master_port')}"
        return Finding(Level.REFUSED, "role", f"a replica takes no jobs; use its primary, {where}")
    return Finding(Level.OK, "role", "primary")


def _eviction(facts: ServerFacts) -> Finding:
    policy = facts.config.get("maxmemory-policy")
    if policy is None:
        return Finding(
            Level.WARNING, "maxmemory-policy", "could not be read; any policy but noeviction drops jobs and results"
        )
    if policy != "noeviction":
        return Finding(
            Level.REFUSED,
            "maxmemory-policy",
            f"{policy} drops jobs, results or leases when memory is short; type: "
            "CONFIG SET maxmemory-policy noeviction (and keep it in the server's configuration)",
        )
    return Finding(Level.OK, "maxmemory-policy", "noeviction")


def _memory(facts: ServerFacts) -> Finding:
    limit, used = int(facts.info.get("maxmemory", 0)), int(facts.info.get("used_memory", 0))
    if not limit:
        return Finding(
            Level.WARNING,
            "memory",
            f"{_mebibytes(used)} in use and no limit set: what is queued grows until the machine has no memory left; "
            "type: CONFIG SET maxmemory BYTES (and keep it in the server's configuration)",
        )
    share = used / limit
    text = f"{_mebibytes(used)} of {_mebibytes(limit)} in use ({share:.0%})"
    if share >= FULL_SHARE:
        return Finding(Level.WARNING, "memory", f"{text}: no more jobs are taken until some are done")
    return Finding(Level.OK, "memory", text)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"


_SYNC: Final[dict[str, tuple[Level, str, str]]] = {
    "always": (Level.OK, "persistence", "appendfsync always: no accepted job is lost in a crash"),
    "everysec": (
        Level.OK,
        "persistence",
        "appendfsync everysec: a crash of its machine loses up to 1 s of accepted jobs",
    ),
    "no": (
        Level.WARNING,
        "persistence",
        "appendfsync no: a crash of its machine loses what the kernel had not written, 30 s or so",
    ),
}
_SYNC_UNKNOWN: Final = (Level.OK, "persistence", "append-only file; how often it is synced could not be read")


def _persistence(facts: ServerFacts) -> Finding:
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        return Finding(
            Level.REFUSED, "persistence", "the append-only file cannot be written (is the disk full?): no job is taken"
        )
    append_only = facts.config.get("appendonly")
    if append_only is None:
        return Finding(Level.WARNING, "persistence", "could not be read; without appendonly a crash loses jobs")
    if append_only != "yes":
        return Finding(
            Level.WARNING,
            "persistence",
            "appendonly is off: when the server stops or crashes, every job and result since its last snapshot is lost",
        )
    return Finding(*_SYNC.get(facts.config.get("appendfsync", ""), _SYNC_UNKNOWN))


def _replication(facts: ServerFacts) -> Finding:
    replicas = int(facts.info.get("connected_slaves", 0))
    if not replicas:
        return Finding(Level.OK, "replication", "no replicas attached")
    required = facts.config.get("min-replicas-to-write", "0")
    if required == "0":
        return Finding(
            Level.WARNING,
            "replication",
            f"{replicas} attached, but min-replicas-to-write is 0: a primary that was cut off goes on accepting jobs, "
            "which a fail-over loses",
        )
    return Finding(Level.OK, "replication", f"{replicas} attached, min-replicas-to-write {required}")


def _clock(facts: ServerFacts) -> Finding:
    offset = facts.clock_offset_seconds
    if abs(offset) <= MAX_CLOCK_DIFFERENCE_SECONDS:
        return Finding(Level.OK, "clock", f"within {MAX_CLOCK_DIFFERENCE_SECONDS:.0f} s of this machine's")
    direction = "ahead of" if offset > 0 else "behind"
    return Finding(
        Level.WARNING,
        "clock",
        f"{abs(offset):.1f} s {direction} this machine's: leases do not mind, but deadlines that are made here are "
        "judged by the server's clock",
    )


_JUDGES: Final[tuple[Callable[[ServerFacts], Finding], ...]] = (
    _version,
    _role,
    _eviction,
    _memory,
    _persistence,
    _replication,
    _clock,
)
