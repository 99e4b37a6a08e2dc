"""Tells a job's record that it runs and that it ended, so that ``Producer.status`` can say so.

Advisory: written by a thread of its own, many jobs in one pipeline, and dropped with a warning while Redis is away.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import redis

from producer import keys
from producer.jobs import JobState

log = logging.getLogger(__name__)

MAX_GROUP_ENTRIES: Final = 256


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long records are kept, in seconds."""

    unfinished_seconds: int
    finished_seconds: int
    """That of the result: a record that outlived it would make callers wait for what is gone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of one record."""

    job_id: str
    fields: dict[str, str]
    lifetime_seconds: int


class Journal:
    """Writes ``state``, ``worker`` and ``started_at`` into job records."""

    def __init__(self, client: "redis.Redis", worker: str, lifetimes: Lifetimes) -> None:
        self._client = client
        self._worker = worker
        self._lifetimes = lifetimes
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def job_started(self, job_id: str) -> None:
        """The job is on its way into the engine; returns at once."""
        fields = {"state": JobState.RUNNING.value, "worker": self._worker, "started_at": repr(time.time())}
        self._queue.put(Entry(job_id, fields, self._lifetimes.unfinished_seconds))

    def job_finished(self, job_id: str, state: JobState) -> None:
        """The job's outcome is in Redis; returns at once."""
        self._queue.put(Entry(job_id, {"state": state.value}, self._lifetimes.finished_seconds))

    def job_put_off(self, job_id: str) -> None:
        """The job waits for another attempt; returns at once."""
        self._queue.put(Entry(job_id, {"state": JobState.RETRYING.value}, self._lifetimes.unfinished_seconds))

    def stop(self, timeout_seconds: float) -> None:
        """Write what is queued and end."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            group = [entry]
            while len(group) < MAX_GROUP_ENTRIES and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)  # for the outer loop
                    break
                group.append(following)
            self._write(group)

    def _write(self, group: list[Entry]) -> None:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for entry in group:
                    record, fields = keys.job_record(entry.job_id), dict[Any, Any](entry.fields)
                    pipe.hset(record, mapping=fields)
                    pipe.expire(record, entry.lifetime_seconds)
                pipe.execute()
        except redis.exceptions.RedisError as error:
            log.warning("%d job states not recorded: %s", len(group), error, extra={"action": "journal_skipped"})
