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
from producer.attempts import handed_back_line
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
    attempt: int = 1
    """1 for the first delivery; of one that started here."""
    went_wrong: str = ""
    """Lines of the attempts before this one; empty where none was, or where they are written already."""
    handed_back: str = ""
    """The line of the attempt that started then and is given back; empty where none is."""


class Journal:
    """Writes ``state``, ``worker``, ``started_at``, ``attempt`` and earlier attempts into job records."""

    def __init__(self, client: "redis.Redis", worker: str, lifetimes: Lifetimes) -> None:
        self._worker = worker
        self._lifetimes = lifetimes
        self._waiting: deque[tuple[str, Entry]] = deque()
        self._script = client.register_script(files("workers").joinpath("journal.lua").read_text(encoding="utf-8"))
        self._paced = Paced("journal", PAUSE_SECONDS, self._write_waiting)

    def start(self) -> None:
        """Start the thread."""
        self._paced.start()

    def job_started(self, job_id: str, attempt: int, started_at: float, went_wrong: str = "") -> None:
        """The job is on its way into the engine since this moment, in seconds since the epoch; returns at once.

        ``went_wrong``: the lines of attempts before this one (:mod:`producer.attempts`).
        """
        lifetime_seconds = self._lifetimes.unfinished_seconds
        self._put(job_id, Entry(JobState.RUNNING, lifetime_seconds, repr(started_at), attempt, went_wrong))

    def job_finished(self, job_id: str, state: JobState, went_wrong: str = "") -> None:
        """The job's outcome is in Redis; returns at once."""
        self._put(job_id, Entry(state, self._lifetimes.finished_seconds, went_wrong=went_wrong))

    def job_put_off(self, job_id: str) -> None:
        """The job waits for another attempt; returns at once."""
        self._put(job_id, Entry(JobState.RETRYING, self._lifetimes.unfinished_seconds))

    def job_handed_back(self, job_id: str, attempt: int, started_at: float) -> None:
        """The job that started here at this moment is in its queue again, as if it had not; returns at once."""
        line = handed_back_line(attempt, self._worker, started_at, time.time())
        lifetime_seconds = self._lifetimes.unfinished_seconds
        entry = Entry(JobState.QUEUED, lifetime_seconds, repr(started_at), attempt, handed_back=line)
        self._put(job_id, entry)

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
                entry.started_at, entry.attempt = earlier.started_at, earlier.attempt
                entry.went_wrong = entry.went_wrong or earlier.went_wrong
            latest[job_id] = entry
        jobs = list(latest.items())
        for start in range(0, len(jobs), MAX_GROUP_JOBS):
            self._write(jobs[start : start + MAX_GROUP_JOBS])

    def _write(self, group: list[tuple[str, Entry]]) -> None:
        arguments: list[str | int] = [self._worker]
        for _, entry in group:
            arguments += [entry.state.value, entry.started_at, entry.attempt, entry.lifetime_seconds]
            arguments += [entry.went_wrong, entry.handed_back]
        try:
            self._script([keys.job_record(job_id) for job_id, _ in group], arguments)
        except redis.exceptions.RedisError as error:
            log.warning("%d job states not recorded: %s", len(group), error, extra={"action": "journal_skipped"})
