"""A finisher over the real result backend and real leases, and jobs whose callbacks are counted."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from celery import Celery
from kombu import pools
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.contract import GenerationResult
from tests.deliveries import HANDOVER_SECONDS, HeldQueue
from tests.finishing import generation_result
from tests.leasing import MODEL, LeaseQueue
from tests.pool_jobs import SILENT_CALLBACKS
from tests.waiting import eventually
from workers.app import AppSettings, make_app
from workers.backend import FleetBackend
from workers.inference.delivery import Delivery
from workers.pool.finisher import Finished, Finisher, Listeners
from workers.pool.job import PoolJob, TimeLimits
from workers.pool.outcome import current_outcome
from workers.transport.lease_store import Finish, FinishStatus, LeaseStore
from workers.transport.leases import Leases
from workers.transport.ledger import Ledger


class RecordedStore(LeaseStore):
    """The real store; remembers the size of each group of results, and can fail after it has acted."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - LeaseStore's
        super().__init__(*args, **options)
        self.group_sizes: list[int] = []
        self.errors_to_raise: list[Exception] = []
        """One for each group of results that is written; a lost reply, say."""

    def finish(self, ends: Sequence[Finish]) -> list[FinishStatus]:
        """Write, and then perhaps fail."""
        self.group_sizes.append(len(ends))
        statuses = super().finish(ends)
        if self.errors_to_raise:
            raise self.errors_to_raise.pop(0)
        return statuses


class Desk(HeldQueue):
    """A finisher over the real backend, and jobs whose callbacks are counted."""

    def __init__(self, app: Celery, store: RecordedStore, held: HeldQueue) -> None:
        super().__init__(held.queue, held.leases)
        self.app = app
        self.recorded = store
        self.traced: list[str] = []
        self.told: list[str] = []
        self.done: list[str] = []
        self.lost: list[str] = []
        self.put_off: list[tuple[str, str]] = []
        self.aborted: list[tuple[str, str]] = []
        self.finisher = Finisher(self.backend, self.leases, 1, Listeners(self._done, self._lost))

    @property
    def backend(self) -> FleetBackend:
        """The app's own, as a worker has it."""
        backend: FleetBackend = self.app.backend
        return backend

    def _done(self, job: PoolJob, _: Finished) -> None:
        self.done.append(job.delivery.job_id)
        if job.delivery.job_id == "harmful":
            raise RuntimeError("a bug in the pool")

    def _lost(self, job: PoolJob) -> None:
        self.lost.append(job.delivery.job_id)

    def job(self, job_id: str, trace: Callable[[], Any] | None = None) -> PoolJob:
        """A job that is held, whose tracer stores its result unless another tracer is given."""

        def store() -> tuple[int, None, float]:
            result = current_outcome.get()
            assert isinstance(result, GenerationResult)
            self.backend.store_result(job_id, result.model_dump(mode="json"), "SUCCESS")
            return 0, None, 0.0

        def traced() -> Any:  # noqa: ANN401 - what Celery's tracer returns
            self.traced.append(job_id)
            return (trace or store)()

        [held] = self.hold(job_id)
        job = PoolJob(
            delivery=Delivery(job_id, job_id, [], time.time()),
            callbacks=replace(
                SILENT_CALLBACKS,
                trace=traced,
                finished=lambda _: self.told.append(job_id),
                put_off=lambda reason: self.put_off.append((job_id, reason)),
            ),
            limits=TimeLimits(None, None),
            accepted_at=time.monotonic(),
            abort=self._abort,
            tag=held.tag,
        )
        self.ledger.enter_pool(held.tag, job)
        return job

    def _abort(self, job: PoolJob, status: str) -> bool:
        job.is_dead = True
        self.aborted.append((job.delivery.job_id, status))
        return True

    def take_over(self, job: PoolJob) -> None:
        """Another worker has the job now; the keeper of this one has not noticed yet."""
        self.queue.expire(job.tag)
        other = self.queue.store("two")
        other.reap()
        assert other.claim(1, held=0).messages

    def put(self, *jobs: PoolJob) -> None:
        """Answer these jobs."""
        for job in jobs:
            self.finisher.put(job, generation_result(job.delivery.job_id))

    def stored(self, job_id: str) -> GenerationResult:
        """The result in Redis."""
        return GenerationResult.model_validate(self.backend.get_task_meta(job_id)["result"])

    @property
    def is_running(self) -> bool:
        """Whether a thread of the finisher lives."""
        return any(thread.is_alive() for thread in self.finisher._threads)


@contextmanager
def desk_at(redis_url: str) -> Iterator[Desk]:
    """A desk that leaves no thread and no connection behind; its finisher is not started."""
    with redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=1) as client:
        queue = LeaseQueue(client)
        store = RecordedStore(client, MODEL, queue.policy, consumer="one", worker="one@host")
        leases = Leases(store, Ledger(HANDOVER_SECONDS))
        app = make_app(AppSettings(redis_url, MODEL), leases)
        app.conf.broker_transport_options = {"socket_connect_timeout": 1}
        desk = Desk(app, store, HeldQueue(queue, leases))
        try:
            yield desk
            if desk.is_running:
                desk.finisher.stop(5.0)
            eventually(lambda: not desk.is_running, what="the finisher's thread ended")
        finally:
            app.backend.client.connection_pool.disconnect()
            pools.reset()  # type: ignore[no-untyped-call]  # kombu carries no types
            app.close()
