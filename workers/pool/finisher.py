"""Threads that let Celery's own tracer record outcomes: results, links, chains, chords, retries, signals, events.

A finisher never dies: while Redis is away the outcomes wait here, and the leases are renewed as soon as it is back.
A job whose outcome cannot be recorded at all goes back to the queue, and to the dead letters when that happens again.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers.inference.answer import Later, Outcome
from workers.pool.job import PoolJob
from workers.pool.outcome import current_outcome, current_tag
from workers.transport.lease_store import FinishStatus, Release
from workers.transport.leases import Leases

log = logging.getLogger(__name__)

MAX_GROUP_JOBS: Final = 64
"""Outcomes whose results go out in one script."""
GROUP_PAUSE_SECONDS: Final = 0.010
"""Between the starts of two groups; so much later a result is stored at most, and only while others are, too."""
FULL_GROUP_JOBS: Final = 8
"""A group of this size does not wait: free slots are worth more than a call of Redis then."""
RETRY_INITIAL_SECONDS: Final = 0.1
RETRY_MAX_SECONDS: Final = 2.0

REDIS_AWAY: Final = (RedisError, OperationalError, OSError)

Returned = TypeVar("Returned")

Finished = Outcome | Exception | Callable[[], None]


class GroupingBackend(Protocol):
    """A result backend that can hold back the results of one group."""

    def grouped(self) -> contextlib.AbstractContextManager[None]:
        """Results stored inside wait for :meth:`flush`."""

    def flush(self) -> dict[str, FinishStatus]:
        """Write what was held back, and say by tag what became of it; may be called again after an error."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears how a job ended; called on finisher threads."""

    on_done: Callable[[PoolJob, Finished], None]
    """Its outcome is in Redis, or it waits in Redis for another attempt."""
    on_lost: Callable[[PoolJob], None]
    """Its lease had been lost: another attempt answers it."""


class Finisher:
    """``thread_count`` threads over one queue of outcomes."""

    def __init__(self, backend: GroupingBackend, leases: Leases, thread_count: int, listeners: Listeners) -> None:
        self._backend = backend
        self._leases = leases
        self._listeners = listeners
        self._queue: queue.SimpleQueue[tuple[PoolJob, Finished] | None] = queue.SimpleQueue()
        self._collecting = threading.Lock()
        self._last_group_at = -math.inf
        self._is_full = threading.Event()
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
        if self._queue.qsize() >= FULL_GROUP_JOBS - 1:  # and the one that a thread has taken already
            self._is_full.set()

    def stop(self, timeout_seconds: float) -> None:
        """Record what is queued, then end the threads; gives up on Redis after the timeout."""
        for _ in self._threads:
            self._queue.put(None)
        self._is_full.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._stopping.set()

    def _run(self) -> None:
        while True:
            with self._collecting:  # the other thread would take every second outcome, and each of them wake for one
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
                    self._leases.ledger.drop(job.tag)  # not renewed any more, its lease runs out
            if is_last:
                return

    def _next_group(self) -> tuple[list[tuple[PoolJob, Finished]], bool]:
        item = self._queue.get()
        if item is not None:
            self._wait_for_company()
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

    def _wait_for_company(self) -> None:
        """Not after a quiet moment, and not where little runs: an idle fleet answers at once."""
        is_busy = len(self._leases.ledger) >= FULL_GROUP_JOBS
        pause_seconds = self._last_group_at + GROUP_PAUSE_SECONDS - time.monotonic()
        if is_busy and pause_seconds > 0:
            self._is_full.wait(pause_seconds)
        self._is_full.clear()
        self._last_group_at = time.monotonic()

    def _finish_group(self, group: list[tuple[PoolJob, Finished]]) -> None:
        self._record_together([item for item in group if not callable(item[1])])
        for job, finished in group:
            if callable(finished):
                # Not held back: Celery acknowledges right behind the result, and the next claim takes that along.
                self._finish_or_give_back(job, finished)

    def _record_together(self, group: list[tuple[PoolJob, Finished]]) -> None:
        traced: list[tuple[PoolJob, Finished, Any]] = []
        with self._backend.grouped():
            for job, finished in group:
                result = self._finish_or_give_back(job, finished)
                if result is not None:
                    traced.append((job, finished, result))
            statuses = self._until_redis_is_back(self._backend.flush)
        if silent := [job.tag for job, _, _ in traced if job.tag not in statuses]:
            # Here and not by Celery's acknowledgement alone, which its main loop makes: it may have ended.
            self._until_redis_is_back(lambda: self._leases.acknowledge(silent))
        for job, finished, (failed, value, _) in traced:
            if statuses.get(job.tag) is FinishStatus.FENCED:
                self._listeners.on_lost(job)
                continue
            if not job.is_dead:
                runtime_seconds = time.monotonic() - job.accepted_at
                self._tell_celery(job, (failed, value, runtime_seconds))
            self._listeners.on_done(job, finished)

    def _finish_or_give_back(self, job: PoolJob, finished: Finished) -> Any:  # noqa: ANN401 - as _finish
        try:
            return self._finish(job, finished)
        except REDIS_AWAY:
            raise
        except Exception:
            log.exception(
                "the outcome of a job cannot be recorded; it goes back to the queue",
                extra={"action": "result_unrecordable", "job_id": job.delivery.job_id},
            )
            self._give_back(job)  # alone: its batch-mates are not to suffer
            return None

    def _finish(self, job: PoolJob, finished: Finished) -> Any:  # noqa: ANN401 - (failed, value, runtime) or None
        """What Celery's tracer says; None when there is nothing to write for the group."""
        if not self._leases.ledger.ending(job.tag):
            # Lost or answered while this waited: nothing would fence what Celery writes now.
            if not job.is_dead:
                self._listeners.on_lost(job)
            return None
        if callable(finished):
            self._until_redis_is_back(finished)
            return None
        if job.is_dead:
            return None  # whoever gave it up says how it ended
        if isinstance(finished, Later):
            self._put_off(job, finished)
            return None
        # The fence is in the write of the result; but links and chains are sent before that one.
        if job.has_successors and not self._until_redis_is_back(lambda: self._leases.store.holds(job.tag)):
            self._listeners.on_lost(job)
            return None
        return self._trace(job, finished)

    def _put_off(self, job: PoolJob, later: Later) -> None:
        self._until_redis_is_back(lambda: self._leases.put_off(job.tag, later.reason, later.delay_seconds))
        job.callbacks.put_off(later.reason)
        self._listeners.on_done(job, later)

    def _give_back(self, job: PoolJob) -> None:
        # As a suspect: what cannot be recorded twice more is answered as poisoned, not tried for ever.
        reason = "its outcome could not be recorded"
        self._until_redis_is_back(lambda: self._leases.store.release([job.tag], Release.SUSPECT, reason=reason))
        self._leases.ledger.drop(job.tag)
        job.abort(job, "given_back")
        self._listeners.on_lost(job)

    def _trace(self, job: PoolJob, outcome: Outcome | Exception) -> Any:  # noqa: ANN401 - (failed, value, runtime)
        current_outcome.set(outcome)
        current_tag.set(job.tag)
        return self._until_redis_is_back(lambda: job.callbacks.trace(*job.callbacks.trace_arguments))

    def _tell_celery(self, job: PoolJob, traced: tuple[Any, Any, float]) -> None:
        job_id = job.delivery.job_id
        try:
            job.callbacks.finished(traced)
        except REDIS_AWAY as error:
            # The result is stored; what failed is an event. The message is acknowledged by the hub all the same.
            log.warning("event not sent: %s", error, extra={"action": "event_lost", "job_id": job_id})
        except Exception:
            log.exception("Celery did not take note of job %s", job_id, extra={"action": "note_lost", "job_id": job_id})

    def _until_redis_is_back(self, write: Callable[[], Returned]) -> Returned:
        delay_seconds = RETRY_INITIAL_SECONDS
        while True:
            try:
                return write()
            except REDIS_AWAY as error:
                log.warning("Redis is away, the outcome waits: %s", error, extra={"action": "result_waits"})
                if self._stopping.wait(delay_seconds):
                    raise
                delay_seconds = min(delay_seconds * 2, RETRY_MAX_SECONDS)
