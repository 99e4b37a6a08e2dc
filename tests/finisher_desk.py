"""A finisher over the real result backend, and jobs whose callbacks are counted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery
from kombu import pools

from producer import keys
from producer.contract import GenerationResult
from tests.finishing import generation_result
from tests.waiting import eventually
from workers.app import AppSettings, make_app
from workers.backend import FleetBackend
from workers.inference.delivery import Delivery
from workers.pool.finisher import Finisher
from workers.pool.job import Callbacks, PoolJob, TimeLimits
from workers.pool.outcome import current_outcome


class Recorded(FleetBackend):
    """The real backend; remembers the size of each group, and can fail after it has acted, as a lost reply does."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(*args, **options)
        self.group_sizes: list[int] = []
        self.replies_to_lose = 0

    def flush(self) -> None:
        """Write, and then perhaps fail."""
        # SET and PUBLISH of each result.
        commands = list(self._local.pipe.command_stack)
        if commands:
            self.group_sizes.append(len(commands) // 2)
        super().flush()
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            self._local.pipe.command_stack = commands
            raise redis.exceptions.ConnectionError("the reply was lost")


class Desk:
    """A finisher over the real backend, and jobs whose callbacks are counted."""

    def __init__(self, app: Celery, redis_url: str) -> None:
        self.app = app
        self.backend = Recorded(app=app, url=redis_url)
        self.traced: list[str] = []
        self.told: list[str] = []
        self.done: list[str] = []
        self.aborted: list[tuple[str, str]] = []
        self.finisher = Finisher(self.backend, 1, lambda job, _: self.done.append(job.delivery.job_id))

    def job(self, job_id: str, trace: Callable[[], Any] | None = None) -> PoolJob:
        """A job whose tracer stores its result, unless another tracer is given."""

        def store() -> tuple[int, None, float]:
            result = current_outcome.get()
            assert isinstance(result, GenerationResult)
            self.backend.set(keys.result(job_id), result.model_dump_json())
            return 0, None, 0.0

        def traced() -> Any:  # noqa: ANN401 - what Celery's tracer returns
            self.traced.append(job_id)
            return (trace or store)()

        return PoolJob(
            delivery=Delivery(job_id, job_id, [], time.time()),
            callbacks=Callbacks(traced, (), lambda _: self.told.append(job_id), lambda _soft, _limit: None),
            limits=TimeLimits(None, None),
            accepted_at=time.monotonic(),
            abort=self._abort,
        )

    def _abort(self, job: PoolJob, status: str) -> bool:
        job.is_dead = True
        self.aborted.append((job.delivery.job_id, status))
        return True

    def put(self, *jobs: PoolJob) -> None:
        """Answer these jobs."""
        for job in jobs:
            self.finisher.put(job, generation_result(job.delivery.job_id))

    def stored(self, job_id: str) -> GenerationResult:
        """The result in Redis."""
        return GenerationResult.model_validate_json(self.backend.client.get(keys.result(job_id)))

    @property
    def is_running(self) -> bool:
        """Whether a thread of the finisher lives."""
        return any(thread.is_alive() for thread in self.finisher._threads)


@contextmanager
def desk_at(redis_url: str) -> Iterator[Desk]:
    """A desk that leaves no thread and no connection behind; its finisher is not started."""
    app = make_app(AppSettings(redis_url, "m"))
    app.conf.broker_transport_options = {"socket_connect_timeout": 1}
    desk = Desk(app, redis_url)
    try:
        yield desk
        if desk.is_running:
            desk.finisher.stop(5.0)
        eventually(lambda: not desk.is_running, what="the finisher's thread ended")
    finally:
        desk.backend.client.connection_pool.disconnect()
        pools.reset()  # type: ignore[no-untyped-call]  # kombu carries no types
        app.close()
