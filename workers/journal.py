"""Tells the job record that a job runs, so that ``Producer.status`` can say so.

Advisory: written by a thread of its own, many jobs in one pipeline, and dropped with a warning while Redis is away.
"""

import logging
import queue
import threading
import time
from typing import Any, Final

import redis

from producer import keys

log = logging.getLogger(__name__)

MAX_GROUP_JOBS: Final = 256


class Journal:
    """Writes ``state``, ``worker`` and ``started_at`` into job records."""

    def __init__(self, client: "redis.Redis", worker: str, record_seconds: int) -> None:
        self._client = client
        self._worker = worker
        self._record_seconds = record_seconds
        self._queue: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def job_started(self, job_id: str) -> None:
        """The job is on its way into the engine; returns at once."""
        self._queue.put((job_id, time.time()))

    def stop(self, timeout_seconds: float) -> None:
        """Write what is queued and end."""
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            group = [item]
            is_last = False
            while len(group) < MAX_GROUP_JOBS and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    is_last = True
                    break
                group.append(following)
            self._write(group)
            if is_last:
                return

    def _write(self, group: list[tuple[str, float]]) -> None:
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for job_id, started_at in group:
                    fields: dict[Any, Any] = {
                        "state": "running",
                        "worker": self._worker,
                        "started_at": repr(started_at),
                    }
                    pipe.hset(keys.job_record(job_id), mapping=fields)
                    pipe.expire(keys.job_record(job_id), self._record_seconds)
                pipe.execute()
        except redis.exceptions.RedisError as error:
            log.warning("%d job starts not recorded: %s", len(group), error, extra={"action": "journal_skipped"})
