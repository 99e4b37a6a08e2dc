"""Micro-batches into the engine: one wake-up per burst, one asyncio task per job, time limits beside it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from workers.engine.entrance import Patience
from workers.engine.host import EngineHost
from workers.inference.answer import Answerer, Outcome
from workers.inference.classify import GivenBack
from workers.observe.records import BatchDrained, Observer
from workers.pool.finisher import Finished
from workers.pool.grouping import NO_GROUPS, Grouping, Refill
from workers.pool.job import PoolJob

NO_BOUND: Final = 2**31


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one drain."""

    max_jobs: int
    """Jobs that enter the engine between two turns of its loop."""
    max_wait_seconds: float
    """How long a drain that is not full waits for company, while the engine has work; an idle engine never waits."""
    seats: int = NO_BOUND
    """Jobs that the engine runs at once."""
    reserved_seats: int = 0
    """Of those, the ones that are for the most urgent lane alone."""
    refill: Refill = NO_GROUPS

    @property
    def common_seats(self) -> int:
        """Seats for every lane."""
        return self.seats - self.reserved_seats


class Runner:
    """Takes jobs from the hub's thread, runs them on the engine's loop, gives outcomes to ``finish``."""

    def __init__(
        self,
        host: EngineHost,
        answerer: Answerer,
        limits: BatchLimits,
        observer: Observer,
        finish: Callable[[PoolJob, Finished], None],
    ) -> None:
        self._host = host
        self._answerer = answerer
        self._limits = limits
        self._observer = observer
        self._finish = finish
        self._urgent: deque[PoolJob] = deque()
        self._others: deque[PoolJob] = deque()
        self._wake_is_due = False
        self._running: set[asyncio.Task[None]] = set()
        self._grouping = Grouping(limits.refill, limits.common_seats, host.loop.time)

    def offer(self, job: PoolJob) -> None:
        """Queue a job for the next drain; called on the hub's thread."""
        (self._others if job.delivery.queue_priority else self._urgent).append(job)
        # The flag is cleared on the loop before it looks at the deque, so a job appended in between is either seen
        # by that look or finds the flag down and wakes the loop again.
        if not self._wake_is_due:
            self._wake_is_due = True
            self._host.loop.call_soon_threadsafe(self._wake)
        elif self._limits.max_wait_seconds and self._waiting == self._limits.max_jobs:  # the wait is over: full
            self._host.loop.call_soon_threadsafe(self._drain)

    def cancel(self, job: PoolJob) -> None:
        """Free the engine's slot of a job that nobody wants any more; any thread."""

        def cancel_on_loop() -> None:
            if job.task is not None:
                job.task.cancel()

        self._host.loop.call_soon_threadsafe(cancel_on_loop)

    @property
    def _waiting(self) -> int:
        return len(self._urgent) + len(self._others)

    def _next(self) -> PoolJob | None:
        """The job whose turn it is, if there is a seat for it; the rest waits here, where urgent ones overtake."""
        limits, running = self._limits, len(self._running)
        if self._urgent and running < limits.seats:
            return self._urgent.popleft()
        if self._others and running < limits.common_seats:
            return self._others.popleft()
        return None

    def _wake(self) -> None:
        self._wake_is_due = False
        is_full = self._waiting >= self._limits.max_jobs
        if self._limits.max_wait_seconds and self._running and not is_full:
            # More jobs may come before the wait is over; the flag stays up so that they do not start a second wait.
            self._wake_is_due = True
            self._host.loop.call_later(self._limits.max_wait_seconds, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self._wake_is_due = False
        taken = 0
        self._grouping.saw(len(self._running), self._waiting)
        while taken < self._limits.max_jobs and (job := self._next()) is not None:
            if job.is_dead:
                continue
            taken += 1
            patience = self._grouping.patience(job.delivery.queue_priority, len(self._running))
            job.task = self._host.loop.create_task(self._run(job, patience))
            self._running.add(job.task)
            job.task.add_done_callback(self._ended)
        if taken:
            self._observer.batch_drained(BatchDrained(taken))
        if taken == self._limits.max_jobs and self._waiting and not self._wake_is_due:
            self._wake_is_due = True
            self._host.loop.call_soon(self._drain)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        was_full = len(self._running) >= self._limits.common_seats
        self._grouping.saw(len(self._running), self._waiting)
        self._running.discard(task)
        if self._waiting and (was_full or not self._running):  # an idle engine never waits, nor does a free seat
            self._drain()

    async def _run(self, job: PoolJob, patience: Patience) -> None:
        loop, limits = self._host.loop, job.limits
        timers = []
        if limits.soft_seconds:
            timers.append(loop.call_later(limits.soft_seconds, self._soft_limit_reached, job, limits.soft_seconds))
        if limits.hard_seconds:
            timers.append(loop.call_later(limits.hard_seconds, self._hard_limit_reached, job, limits.hard_seconds))
        outcome: Outcome | Exception
        try:
            outcome = await self._answerer.answer(job.delivery, patience)
        except asyncio.CancelledError:
            if job.is_dead:
                return
            outcome = SoftTimeLimitExceeded(limits.soft_seconds)
        finally:
            for timer in timers:
                timer.cancel()
        if isinstance(outcome, GivenBack):
            # No outcome is recorded: the message stays unacknowledged and goes back when this process ends.
            self._host.report_death(outcome.reason)
        elif not job.is_dead:
            self._finish(job, outcome)

    def _soft_limit_reached(self, job: PoolJob, limit_seconds: float) -> None:
        self._finish(job, lambda: job.callbacks.timed_out(True, limit_seconds))  # noqa: FBT003 - Celery's signature
        if job.task is not None:
            job.task.cancel()

    def _hard_limit_reached(self, job: PoolJob, limit_seconds: float) -> None:
        if job.abort(job, "time_limit_exceeded"):
            self._finish(job, lambda: job.callbacks.timed_out(False, limit_seconds))  # noqa: FBT003 - Celery's signature
