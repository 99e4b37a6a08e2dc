"""Who holds which job at this moment, as Redis knows it, and how long a job waits for its next holder."""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import orjson
import redis

from producer import keys

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.05
"""Between two looks at the leases; a job that is held for less may be missed, and is then counted as unseen."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One claimed message."""

    tag: str
    job_id: str
    worker: str
    claimed_at: float
    """Seconds since the epoch, by the server's clock."""

    @classmethod
    def read(cls, tag: bytes, entry: bytes) -> "Lease":
        """From the entry whose form ``workers/transport/common.lua`` describes."""
        head, _, message = entry.partition(b"\n")
        _number, _step, _delivery, _retries, claimed_at, worker = head.decode().split(" ", 5)
        return cls(tag.decode(), orjson.loads(message)["headers"]["id"], worker, float(claimed_at))


class LeaseView:
    """The leases of one model; an entry never changes, so each is read once."""

    def __init__(self, client: "redis.Redis", model: str) -> None:
        self._client = client
        self._name = keys.QueueKeys(model).leased
        self._known: dict[bytes, Lease] = {}
        self._lock = threading.Lock()

    def current(self) -> list[Lease]:
        """Everything that is claimed now."""
        with self._lock:
            tags = cast("list[bytes]", self._client.hkeys(self._name))
            unknown = [tag for tag in tags if tag not in self._known]
            known = {tag: self._known[tag] for tag in tags if tag in self._known}
            entries = cast("list[bytes | None]", self._client.hmget(self._name, unknown)) if unknown else []
            for tag, entry in zip(unknown, entries, strict=True):
                if entry is not None:
                    known[tag] = Lease.read(tag, entry)
            self._known = known
            return list(known.values())


@dataclass(frozen=True, slots=True)
class _Watched:
    fault: str
    since: float
    tag: str


@dataclass(frozen=True, slots=True)
class Waits:
    """How long jobs that a fault took from their worker waited for the next, in seconds."""

    seconds: Sequence[float] = ()
    unseen: int = 0
    """Jobs whose next claim was shorter than a look, or never came (then they have no result either)."""

    def summary(self) -> dict[str, float | int]:
        """Count, median, p99 and maximum."""
        ordered = sorted(self.seconds)
        figures: dict[str, float | int] = {"jobs": len(ordered), "unseen": self.unseen}
        if ordered:
            figures |= {
                name: round(_percentile(ordered, share), 3)
                for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            }
        return figures


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class RedeliveryClock:
    """Measures, from a thread of its own, the time from a fault to the next claim of each job that it took away."""

    view: LeaseView
    _watched: dict[str, _Watched] = field(default_factory=dict, init=False)
    _seconds: dict[str, list[float]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="redelivery-clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def watch(self, fault: str, leases: Sequence[Lease], since: float) -> None:
        """These jobs lost their worker at ``since``, seconds since the epoch by the server's clock."""
        with self._lock:
            self._look(leases)  # one that was claimed a moment ago, and lost again, has been redelivered once
            self._watched |= {lease.job_id: _Watched(fault, since, lease.tag) for lease in leases}

    def waits(self) -> dict[str, Waits]:
        """By fault."""
        with self._lock:
            unseen = [each.fault for each in self._watched.values()]
            faults = self._seconds.keys() | set(unseen)
            return {fault: Waits(tuple(self._seconds.get(fault, ())), unseen.count(fault)) for fault in faults}

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                leases = self.view.current()
            except redis.exceptions.RedisError as error:
                log.debug("the leases cannot be read: %s", error)
                continue
            with self._lock:
                self._look(leases)

    def _look(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            watched = self._watched.get(lease.job_id)
            if watched is not None and watched.tag != lease.tag:
                self._seconds.setdefault(watched.fault, []).append(lease.claimed_at - watched.since)
                del self._watched[lease.job_id]
