"""The scenarios by name: which faults, how often, on what."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tests.chaos.jobs import JobShape

Server = Literal["always", "everysec", "power_loss", "small_disk"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run's plan. A worker has eight slots and a job takes 0.4 to 1.2 s, unless the scenario says otherwise."""

    name: str
    faults: Mapping[str, int]
    """Fault to how often; the seed decides on the order."""
    engine: Literal["simulated", "vllm"] = "simulated"
    workers: int = 3
    survivors: int = 1
    """A worker is struck only while so many others hold jobs."""
    jobs: int = 300
    """At least so many; submitting goes on until the last fault."""
    backlog: int = 60
    """Jobs that wait, as long as jobs are submitted."""
    gap_seconds: tuple[float, float] = (0.5, 2.0)
    """Between the end of a fault and the next."""
    shape: JobShape = field(default_factory=lambda: JobShape(0))
    settings: Mapping[str, Any] = field(default_factory=dict)
    server: Server = "always"
    clock_offsets_seconds: tuple[int, ...] = ()
    """Of the first, second and further workers."""
    max_attempt: int | None = None
    """Where no fault costs an attempt: 1."""

    @property
    def lease_seconds(self) -> float:
        """How long a claim holds."""
        return float(self.settings.get("worker.lease_seconds", 5.0))

    @property
    def needs_proxies(self) -> bool:
        """Whether its faults are on the way between worker and server."""
        return any(fault in {"redis_connection_cut", "redis_delay"} for fault in self.faults)


def _named(name: str, count: int, **fields: Any) -> Scenario:  # noqa: ANN401 - a Scenario's fields
    """A scenario of one fault, by that fault's name."""
    return Scenario(name, {name: count}, **fields)


NOBODY_SPARED: Final[Mapping[str, Any]] = {"survivors": 0, "gap_seconds": (2.0, 5.0)}
HAND_BACK: Final[Mapping[str, Any]] = {"worker.drain_timeout_seconds": 0.2}

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        _named("worker_sigkill", 10, workers=5, survivors=3),
        Scenario(
            "worker_sigkill_short_jobs",
            {"worker_sigkill": 40},
            survivors=0,
            backlog=400,
            gap_seconds=(0.2, 1.5),
            shape=JobShape(0, shortest_tokens=1, longest_tokens=2),
        ),
        _named("engine_core_sigkill", 10),
        _named("engine_hang", 3, engine="vllm", workers=2, gap_seconds=(2.0, 5.0)),
        _named("worker_sigstop", 6),
        _named("worker_sigterm", 8, settings=HAND_BACK, max_attempt=1),
        _named("supervisor_kill", 4, settings=HAND_BACK, max_attempt=1),
        _named("redis_sigkill", 5, **NOBODY_SPARED),
        Scenario("redis_sigkill_everysec", {"redis_sigkill": 5}, server="everysec", **NOBODY_SPARED),
        _named(
            "redis_power_loss",
            6,
            server="power_loss",
            survivors=0,
            gap_seconds=(3.0, 6.0),
            shape=JobShape(0, shortest_tokens=100, longest_tokens=200),
        ),
        _named("redis_connection_cut", 8),
        _named("redis_delay", 4),
        _named(
            "producer_kill",
            10,
            survivors=0,
            jobs=3000,
            backlog=1_000_000,
            gap_seconds=(0.0, 0.5),
            shape=JobShape(0, shortest_tokens=5, longest_tokens=20),
            settings={"engine.options.max_num_seqs": 64},
            max_attempt=1,
        ),
        Scenario(
            "clock_skew",
            {"worker_sigkill": 4},
            clock_offsets_seconds=(3600, -3600, 0),
            jobs=600,
            gap_seconds=(2.0, 5.0),
            shape=JobShape(0, deadline_seconds=600.0),
        ),
        _named("disk_full", 3, server="small_disk", **NOBODY_SPARED),
        _named("out_of_memory", 4, shape=JobShape(0, prompt_bytes=256 * 1024)),
        Scenario(
            "mixed",
            {
                "worker_sigkill": 6,
                "engine_core_sigkill": 3,
                "worker_sigstop": 2,
                "worker_sigterm": 2,
                "supervisor_kill": 2,
                "redis_sigkill": 2,
                "redis_connection_cut": 3,
                "redis_delay": 1,
                "producer_kill": 2,
            },
            workers=4,
            settings=HAND_BACK,
        ),
    )
}

SHORT: Final = Scenario(
    "short",
    {"worker_sigkill": 2, "engine_core_sigkill": 1, "worker_sigstop": 1, "redis_sigkill": 1, "producer_kill": 1}
    | {"redis_connection_cut": 1},
    workers=2,
    jobs=150,
    backlog=30,
    gap_seconds=(0.1, 0.3),
    settings={"worker.lease_seconds": 2.0},
)
"""For every change: one of each that costs no waiting, in under a minute."""


def with_kills(scenario: Scenario, kills: int) -> Scenario:
    """The same with so many of its first fault."""
    first = next(iter(scenario.faults))
    return replace(scenario, faults=dict(scenario.faults) | {first: kills})
