"""What became of jobs that Flower believes to run: told by the events that their worker could not send.

Flower knows jobs by Celery's events alone. A worker that is killed sends none, and what it ran stays STARTED there for
ever. So the starts and ends of all jobs are heard here too; of those that ended in silence the truth is looked up in
Redis, and told once, as Celery events of a node of our own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis

from producer import keys

OPENING: Final = ("task-received", "task-started")
CLOSING: Final = ("task-succeeded", "task-failed", "task-revoked", "task-rejected", "task-retried")
MOST_JOBS: Final = 200_000
"""Remembered at once, as many as a large fleet runs; beyond them the oldest is forgotten."""
LOOKUP_JOBS: Final = 500
"""In one round trip."""
SILENCE_SECONDS: Final = 60.0
"""A job whose worker lives is looked up so long after it was last heard of: its end may have been said while the
connection was cut."""
SUCCESS: Final[tuple[str, Mapping[str, Any]]] = ("task-succeeded", {})
ENDS: Final[Mapping[bytes | None, tuple[str, Mapping[str, Any]]]] = {
    None: SUCCESS,
    b"SUCCESS": SUCCESS,
    b"FAILURE": ("task-failed", {"exception": "it failed; its stored result says why", "traceback": None}),
    b"REVOKED": ("task-revoked", {"terminated": False, "signum": None, "expired": False}),
}
"""By what the record of a job says that has a result, which is not read, since it holds the answer. Nothing is said of
a plain success; that a result is not the last (Celery keeps RETRY there too) is said by an empty word."""

WAITS: Final = "task-retried"


@dataclass(frozen=True, slots=True)
class Event:
    """What is told of a job."""

    kind: str
    """As Celery calls it."""
    job_id: str
    fields: Mapping[str, Any]


Tell = Callable[[Sequence[Event]], None]
"""Sends events, in this order."""


@dataclass(slots=True)
class Running:
    """A job that was heard to be at a worker."""

    worker: str
    heard_at: float
    """Or when it was last looked up; monotonic."""
    waits: bool = False
    """Flower was told that it waits again. It is looked at until it is somewhere else: it may end in silence even now,
    or have ended between the look and the telling."""


class RunningJobs:
    """What events say of who runs what; thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._jobs: OrderedDict[str, Running] = OrderedDict()
        self._lock = threading.Lock()

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], None]]:
        """For Celery's receiver, by event type."""
        return dict.fromkeys(OPENING, self._opened) | dict.fromkeys(CLOSING, self._closed)

    def _opened(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._jobs[event["uuid"]] = Running(event["hostname"], self._now())
            self._jobs.move_to_end(event["uuid"])
            while len(self._jobs) > MOST_JOBS:
                self._jobs.popitem(last=False)

    def _closed(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._jobs.pop(event["uuid"], None)

    def doubtful(self, present: set[str]) -> dict[str, str]:
        """Job and worker: whose worker is not present, or which were not heard of for long."""
        before = self._now() - SILENCE_SECONDS
        with self._lock:
            return {
                job_id: job.worker
                for job_id, job in self._jobs.items()
                if job.worker not in present or job.heard_at < before
            }

    def told(self, event: Event, worker: str) -> None:
        """Remember what was told of a job, if it is still where it was."""
        with self._lock:
            job = self._jobs.get(event.job_id)
            if job is None or job.worker != worker:
                return
            if event.kind == WAITS:
                job.waits = True
            else:
                del self._jobs[event.job_id]

    def waits(self, job_id: str) -> bool:
        """Whether it was told that it waits."""
        with self._lock:
            job = self._jobs.get(job_id)
            return job is not None and job.waits

    def still_runs(self, job_id: str) -> None:
        """It was looked up, and there is nothing to tell."""
        with self._lock:
            if (job := self._jobs.get(job_id)) is not None:
                job.heard_at = self._now()


class Truth:
    """Looks up what is doubtful, and tells what it finds."""

    def __init__(self, client: Redis, jobs: RunningJobs, tell: Tell) -> None:
        self._client = client
        self._jobs = jobs
        self._tell = tell

    def look(self) -> int:
        """Once; how many jobs were told of.

        Raises:
            RedisError: the server could not be reached, or refused.
        """
        present = self._present()
        doubtful = list(self._jobs.doubtful(present).items())
        groups = (doubtful[at : at + LOOKUP_JOBS] for at in range(0, len(doubtful), LOOKUP_JOBS))
        return sum(self._settle(dict(group), present) for group in groups)

    def _present(self) -> set[str]:
        seconds, microseconds = self._client.time()
        moment = f"({seconds + microseconds / 1e6}"
        return {name.decode() for name in cast("list[bytes]", self._client.zrangebyscore(keys.WORKERS, moment, "+inf"))}

    def _settle(self, doubtful: Mapping[str, str], present: set[str]) -> int:
        events = []
        for (job_id, worker), (has_result, end) in zip(doubtful.items(), self._ends(list(doubtful)), strict=True):
            if has_result and end in ENDS:
                kind, fields = ENDS[end]
                events.append(Event(kind, job_id, fields))
            elif worker in present or self._jobs.waits(job_id):
                self._jobs.still_runs(job_id)
            else:
                events.append(Event(WAITS, job_id, {"exception": f"{worker} is gone; it waits again"}))
        if events:
            self._tell(events)
        for event in events:
            self._jobs.told(event, doubtful[event.job_id])
        return len(events)

    def _ends(self, job_ids: Sequence[str]) -> list[tuple[int, bytes | None]]:
        """Of each whether it has a result, and how it ended by its record."""
        with self._client.pipeline(transaction=False) as asked:
            for job_id in job_ids:
                asked.exists(keys.result(job_id))
                asked.hget(keys.job_record(job_id), "ended")
            found = asked.execute()
        return list(zip(found[::2], found[1::2], strict=True))
