"""``EnginePool``: Celery's pool interface over one resident engine.

Celery keeps the message, the request, events, limits, revocation and the tracer; the pool replaces only where the work
is done. ``tests/contracts/test_celery_internals.py`` holds Celery to what this relies on.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

from celery.app.base import Celery
from celery.concurrency.base import BasePool, apply_target
from redis.exceptions import RedisError

from producer.attempts import lines_of
from producer.contract import GenerationResult
from producer.jobs import JobState
from workers.engine.host import EngineHost
from workers.inference.answer import Answerer, Later
from workers.inference.delivery import Delivery
from workers.journal import Journal
from workers.observe.records import JobFinished, Observer
from workers.pool.celery_request import callbacks_of, delivery_tag, has_successors
from workers.pool.finisher import Finished, Finisher, Listeners
from workers.pool.job import PoolJob, TimeLimits
from workers.pool.runner import BatchLimits, Runner
from workers.pool.short_trace import trace
from workers.pool.status import final_state, status_of
from workers.tracing import Tracing
from workers.transport.lease_store import Release
from workers.transport.leases import Leases
from workers.transport.ledger import Held

log = logging.getLogger(__name__)

SIDE_THREADS: Final = 4
"""Threads for tasks that need no engine (link callbacks, chord error callbacks)."""
POLL_SECONDS: Final = 0.01
FINISHER_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class PoolRuntime:
    """What the composition root gives to the pool, since Celery makes the pool itself."""

    host: EngineHost
    answerer: Answerer
    limits: BatchLimits
    observer: Observer
    journal: Journal
    leases: Leases
    engine_tasks: frozenset[str]
    finisher_threads: int
    drain_timeout_seconds: float
    tracing: Tracing | None = None


class SideJob:
    """A task that runs in a thread; it cannot be stopped once it runs."""

    def __init__(self, future: "Future[None]") -> None:
        self._future = future

    def terminate(self, _signal: int | None = None) -> None:
        """Not started yet: never will be."""
        self._future.cancel()


class EnginePool(BasePool):
    """See the module. Use :meth:`bound_to`: Celery instantiates the class it is given."""

    runtime: ClassVar[PoolRuntime]
    signal_safe = False
    body_can_be_buffer = True

    @classmethod
    def bound_to(cls, runtime: PoolRuntime) -> type["EnginePool"]:
        """A pool class over this engine."""
        return type("EnginePool", (cls,), {"runtime": runtime, "__module__": cls.__module__})

    def __init__(self, limit: int | None = None, *, app: Celery, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(limit, app=app, **options)
        self._jobs: dict[int, PoolJob] = {}
        self._lock = threading.Lock()
        self._is_hurried = threading.Event()
        self._side = ThreadPoolExecutor(SIDE_THREADS, thread_name_prefix="side")
        listeners = Listeners(self._done, self._lost)
        self._finisher = Finisher(app.backend, self.runtime.leases, self.runtime.finisher_threads, listeners)
        self._runner = Runner(
            self.runtime.host, self.runtime.answerer, self.runtime.limits, self.runtime.observer, self._finisher.put
        )

    # Hub thread: Celery calls these.

    def on_start(self) -> None:
        """The engine runs already; start what records outcomes."""
        self._finisher.start()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        accept_callback: Callable[[int, float], None] = lambda _pid, _at: None,
        **options: Any,  # noqa: ANN401 - Celery's
    ) -> PoolJob | SideJob:
        """Take one job: onto the engine, or into a side thread when its task needs none."""
        tag = delivery_tag(args[2])
        if args[0] not in self.runtime.engine_tasks:
            side = SideJob(self._side.submit(apply_target, target, args, kwargs, options["callback"], accept_callback))
            self.runtime.leases.ledger.enter_pool(tag, side)
            return side
        callbacks = callbacks_of(self, partial(trace, self.app.backend, target), args, options)
        job = PoolJob(
            delivery=_delivery(args[1], args[2]),
            callbacks=callbacks,
            limits=TimeLimits(options.get("soft_timeout"), options.get("timeout")),
            accepted_at=time.monotonic(),
            abort=self._abort,
            tag=tag,
            has_successors=has_successors(args[3]),
        )
        held = self.runtime.leases.ledger.enter_pool(tag, job)
        if held is None:
            # Celery kept the message for so long that its lease ran out: somebody else has it.
            job.is_dead = True
            callbacks.forget()
            return job
        job.went_wrong = lines_of(held.message.history, job.delivery.attempt)
        with self._lock:
            self._jobs[job.token] = job
        self.runtime.observer.active_jobs(len(self._jobs))
        # Celery may answer by revoking at once (a revoke that came before the job): then it never reaches the engine.
        accept_callback(job.token, job.accepted_at)
        self._begin(job, held)
        return job

    def _begin(self, job: PoolJob, held: Held) -> None:
        if job.is_dead:
            return
        if held.is_cancelled:
            self.cancel(held)
        elif held.verdict is not None:
            self._finisher.put(job, held.verdict)
        else:
            delivery = job.delivery.redelivered(held.message.delivery, held.message.retries)
            job.delivery = delivery.traced(self.runtime.tracing)
            self.runtime.journal.job_started(delivery.job_id, delivery.attempt, delivery.received_at, job.went_wrong)
            self._runner.offer(job)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:  # noqa: ARG002 - Celery's signature
        """A running job was revoked with ``terminate``: free its slot in the engine."""
        job = self._jobs.get(pid)
        if job is not None:
            self._abort(job, "cancelled")

    def on_stop(self) -> None:
        """Warm shutdown: finish what fits the drain budget, hand back the rest."""
        deadline = time.monotonic() + self.runtime.drain_timeout_seconds
        while self._jobs and self.runtime.host.death is None and time.monotonic() < deadline:
            if self._is_hurried.wait(POLL_SECONDS):
                break
        self._hand_back_rest()

    def on_terminate(self) -> None:
        """Cold shutdown: everything unfinished goes back."""
        self._hand_back_rest()

    def hurry(self) -> None:
        """Stop waiting for running jobs; safe in a signal handler."""
        self._is_hurried.set()

    # Any thread.

    def _abort(self, job: PoolJob, status: str) -> bool:
        with self._lock:
            if job.is_dead or job.token not in self._jobs:
                return False
            job.is_dead = True
            del self._jobs[job.token]
        self._runner.cancel(job)
        self._observe_finished(job, status)
        return True

    def cancel(self, held: Held) -> None:
        """Nobody wants this delivery's job any more: its slot is free at once, its caller hears of it."""
        job = held.in_pool
        if isinstance(job, PoolJob) and self._abort(job, "cancelled"):
            self._finisher.put(job, lambda: self._revoke(job))

    def _revoke(self, job: PoolJob) -> None:
        job.callbacks.revoke()
        self.runtime.journal.job_finished(job.delivery.job_id, JobState.CANCELLED)

    def lose(self, held: Held) -> None:
        """Somebody else has this delivery's job now: its slot is free at once, and nothing is said."""
        if isinstance(held.in_pool, PoolJob):
            self._lost(held.in_pool)

    def _lost(self, job: PoolJob) -> None:
        log.warning("lost its lease", extra={"action": "lease_lost", "job_id": job.delivery.job_id})
        if not self._abort(job, "lease_lost"):
            job.is_dead = True
        job.callbacks.forget()

    def _hand_back_rest(self) -> None:
        # Outcomes that are here already are recorded first; what finishes in the engine from now on is not.
        self._finisher.stop(FINISHER_STOP_SECONDS)
        with self._lock:
            rest = list(self._jobs.values())
        for job in rest:
            self._abort(job, "given_back")
        self._side.shutdown(wait=False, cancel_futures=True)
        try:
            suspects = self._release({job.tag for job in rest if job.task is not None})
            for delivery in [job.delivery for job in rest if job.tag not in suspects]:
                self.runtime.journal.job_handed_back(delivery.job_id, delivery.attempt, delivery.received_at)
        except RedisError as error:
            log.error(  # noqa: TRY400 - an outage has no traceback worth reading
                "%d jobs go back when their leases end: %s", len(rest), error, extra={"action": "hand_back_failed"}
            )

    def _release(self, started: set[str]) -> set[str]:
        """Give up everything that this process holds; what ran in an engine that died is suspected of it: its tags."""
        store, ledger = self.runtime.leases.store, self.runtime.leases.ledger
        tags, death = [held.tag for held in ledger.entries()], self.runtime.host.death
        suspects = {tag for tag in tags if death is not None and tag in started}
        others = [tag for tag in tags if tag not in suspects]
        released = store.release(others, Release.HAND_BACK) if others else 0
        released += store.release(suspects, Release.SUSPECT, reason=f"the engine died: {death}") if suspects else 0
        for tag in tags:
            ledger.drop(tag)
        if released:
            log.warning("%d unfinished jobs go back to the queue", released, extra={"action": "jobs_handed_back"})
        return suspects

    def _done(self, job: PoolJob, finished: Finished) -> None:
        """Celery has recorded the outcome; finisher threads."""
        with self._lock:
            self._jobs.pop(job.token, None)
        if isinstance(finished, Later):
            self.runtime.journal.job_put_off(job.delivery.job_id)
        else:
            self.runtime.journal.job_finished(job.delivery.job_id, final_state(finished), job.went_wrong)
        self._observe_finished(job, status_of(finished), finished if isinstance(finished, GenerationResult) else None)

    def _observe_finished(self, job: PoolJob, status: str, result: GenerationResult | None = None) -> None:
        if (trace_of_job := job.delivery.trace) is not None:
            trace_of_job.ended(status, result)
        self.runtime.observer.active_jobs(len(self._jobs))
        self.runtime.observer.job_finished(
            JobFinished(
                job_id=job.delivery.job_id,
                status=status,
                running_seconds=time.monotonic() - job.accepted_at,
                queued_seconds=job.delivery.queued_seconds,
                first_token_seconds=result.timings.first_token_seconds if result else None,
                prompt_tokens=result.usage.prompt_tokens if result else 0,
                completion_tokens=result.usage.completion_tokens if result else 0,
                attempt=job.delivery.attempt,
            )
        )

    def _get_info(self) -> dict[str, Any]:
        """Shown by ``celery inspect stats``."""
        info: dict[str, Any] = super()._get_info()
        return info | {"running": len(self._jobs), "engine": type(self.runtime.host.engine).__name__}


def _delivery(job_id: str, request: Mapping[str, Any]) -> Delivery:
    retries = int(request.get("retries") or 0)
    system = request.get("fleet")
    return Delivery(
        job_id=job_id,
        # The tag is this delivery's alone: the engine never sees one id twice.
        attempt_id=f"{job_id}/{delivery_tag(request)}",
        tag=delivery_tag(request),
        arguments=request["args"],
        received_at=time.time(),
        attempt=retries + 1,
        queue_priority=int(request.get("delivery_info", {}).get("priority") or 0),
        system=system if isinstance(system, Mapping) else {},
    )
