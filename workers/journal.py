"""Tells a job's record that it runs and that it ended, so that ``Producer.status`` can say so.

Advisory: written by a thread of its own, for many jobs in one script, and dropped with a warning while Redis is away.
"""

import logging
import time
from collections import deque
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import redis

from producer import keys
from producer.jobs import JobState
from workers.paced import Paced

log = logging.getLogger(__name__)

MAX_GROUP_JOBS: Final = 256
"""Jobs in one script, so that none keeps the server long."""
PAUSE_SECONDS: Final = 0.05
"""A record is this late at most; what starts and ends in between is one write."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long records are kept, in seconds."""

    unfinished_seconds: int
    finished_seconds: int
    """That of the result: a record that outlived it would make callers wait for what is gone."""


@dataclass(slots=True)
class Entry:
    """What becomes of one record."""

    state: JobState
    lifetime_seconds: int
    started_at: str = ""
    """Seconds since the epoch; empty where it did not start here."""


class Journal:
    """Writes ``state``, ``worker`` and ``started_at`` into job records."""

    def __init__(self, client: "redis.Redis", worker: str, lifetimes: Lifetimes) -> None:
        self._worker = worker
        self._lifetimes = lifetimes
        self._waiting: deque[tuple[str, Entry]] = deque()
        self._script = client.register_script(files("workers").joinpath("journal.lua").read_text(encoding="utf-8"))
        self._paced = Paced("journal", PAUSE_SECONDS, self._write_waiting)

    def start(self) -> None:
        """Start the thread."""
        self._paced.start()

    def job_started(self, job_id: str) -> None:
        """The job is on its way into the engine; returns at once."""
        self._put(job_id, Entry(JobState.RUNNING, self._lifetimes.unfinished_seconds, repr(time.time())))

    def job_finished(self, job_id: str, state: JobState) -> None:
        """The job's outcome is in Redis; returns at once."""
        self._put(job_id, Entry(state, self._lifetimes.finished_seconds))

    def job_put_off(self, job_id: str) -> None:
        """The job waits for another attempt; returns at once."""
        self._put(job_id, Entry(JobState.RETRYING, self._lifetimes.unfinished_seconds))

    def stop(self, timeout_seconds: float) -> None:
        """Write what is queued and end."""
        self._paced.stop(timeout_seconds)

    def _put(self, job_id: str, entry: Entry) -> None:
        self._waiting.append((job_id, entry))
        self._paced.notify()

    def _write_waiting(self) -> None:
        latest: dict[str, Entry] = {}
        while self._waiting:
            job_id, entry = self._waiting.popleft()
            earlier = latest.pop(job_id, None)
            if earlier is not None and not entry.started_at:
                entry.started_at = earlier.started_at
            latest[job_id] = entry
        jobs = list(latest.items())
        for start in range(0, len(jobs), MAX_GROUP_JOBS):
            self._write(jobs[start : start + MAX_GROUP_JOBS])

    def _write(self, group: list[tuple[str, Entry]]) -> None:
        arguments: list[str | int] = [self._worker]
        for _, entry in group:
            arguments += [entry.state.value, entry.started_at, entry.lifetime_seconds]
        try:
            self._script([keys.job_record(job_id) for job_id, _ in group], arguments)
        except redis.exceptions.RedisError as error:
            log.warning("%d job states not recorded: %s", len(group), error, extra={"action": "journal_skipped"})
