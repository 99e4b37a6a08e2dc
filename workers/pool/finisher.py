"""Threads that let Celery's own tracer record outcomes: results, links, chains, chords, retries, signals, events.

A finisher never dies: while Redis is away the outcomes wait here, and the jobs' messages stay unacknowledged. So does
the message of a job whose outcome cannot be recorded at all.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers.inference.answer import Outcome
from workers.pool.job import PoolJob
from workers.pool.outcome import current_outcome

log = logging.getLogger(__name__)

MAX_GROUP_JOBS: Final = 64
"""Outcomes whose results go out in one pipeline."""
RETRY_INITIAL_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 2.0

REDIS_AWAY: Final = (RedisError, OperationalError, OSError)

Finished = Outcome | Exception | Callable[[], None]


class GroupingBackend(Protocol):
    """A result backend that can hold back the results of one group."""

    def grouped(self) -> contextlib.AbstractContextManager[None]:
        """Results stored inside wait for :meth:`flush`."""

    def flush(self) -> None:
        """Write what was held back; may be called again after an error."""


class Finisher:
    """``thread_count`` threads over one queue of outcomes."""

    def __init__(
        self, backend: GroupingBackend, thread_count: int, on_done: Callable[[PoolJob, Finished], None]
    ) -> None:
        self._backend = backend
        self._on_done = on_done
        self._queue: queue.SimpleQueue[tuple[PoolJob, Finished] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"finisher-{number}", daemon=True) for number in range(thread_count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, job: PoolJob, finished: Finished) -> None:
        """Hand over an outcome; any thread."""
        self._queue.put((job, finished))

    def stop(self, timeout_seconds: float) -> None:
        """Record what is queued, then end the threads; gives up on Redis after the timeout."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._stopping.set()

    def _run(self) -> None:
        while True:
            group, is_last = self._next_group()
            try:
                self._finish_group(group)
            except REDIS_AWAY as error:  # only while stopping: the pool hands back what is not recorded
                log.error(  # noqa: TRY400 - an outage has no traceback worth reading
                    "%d outcomes not recorded: %s", len(group), error, extra={"action": "results_given_up"}
                )
            except Exception:
                log.exception("%d outcomes not recorded", len(group), extra={"action": "results_given_up"})
                for job, _ in group:
                    job.abort(job, "given_back")
            if is_last:
                return

    def _next_group(self) -> tuple[list[tuple[PoolJob, Finished]], bool]:
        item = self._queue.get()
        group: list[tuple[PoolJob, Finished]] = []
        while item is not None:
            group.append(item)
            if len(group) == MAX_GROUP_JOBS:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _finish_group(self, group: list[tuple[PoolJob, Finished]]) -> None:
        if not group:
            return
        traced: list[tuple[PoolJob, Finished, Any]] = []
        with self._backend.grouped():
            for job, finished in group:
                try:
                    if callable(finished):
                        self._until_redis_is_back(finished)
                    else:
                        traced.append((job, finished, self._trace(job, finished)))
                except REDIS_AWAY:
                    raise
                except Exception:
                    log.exception(
                        "the outcome of a job cannot be recorded; it goes back to the queue when this worker ends",
                        extra={"action": "result_unrecordable", "job_id": job.delivery.job_id},
                    )
                    job.abort(job, "given_back")  # alone: its batch-mates are not to suffer
            self._until_redis_is_back(self._backend.flush)
        # Acknowledged only now: the results are in Redis.
        for job, finished, (failed, value, _) in traced:
            if not job.is_dead:
                runtime_seconds = time.monotonic() - job.accepted_at
                self._tell_celery(job, (failed, value, runtime_seconds))
            self._on_done(job, finished)

    def _trace(self, job: PoolJob, outcome: Outcome | Exception) -> Any:  # noqa: ANN401 - (failed, value, runtime)
        current_outcome.set(outcome)
        traced: list[Any] = []
        self._until_redis_is_back(lambda: traced.append(job.callbacks.trace(*job.callbacks.trace_arguments)))
        return traced[0]

    def _tell_celery(self, job: PoolJob, traced: tuple[Any, Any, float]) -> None:
        job_id = job.delivery.job_id
        try:
            job.callbacks.finished(traced)
        except REDIS_AWAY as error:
            # The result is stored; what failed is an event. The message is acknowledged by the hub all the same.
            log.warning("event not sent: %s", error, extra={"action": "event_lost", "job_id": job_id})
        except Exception:
            log.exception("Celery did not take note of job %s", job_id, extra={"action": "note_lost", "job_id": job_id})

    def _until_redis_is_back(self, write: Callable[[], object]) -> None:
        delay_seconds = RETRY_INITIAL_SECONDS
        while True:
            try:
                write()
            except REDIS_AWAY as error:
                log.warning("Redis is away, the outcome waits: %s", error, extra={"action": "result_waits"})
                if self._stopping.wait(delay_seconds):
                    raise
                delay_seconds = min(delay_seconds * 2, RETRY_MAX_SECONDS)
            else:
                return
