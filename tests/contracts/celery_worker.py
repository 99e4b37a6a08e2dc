"""Celery's own worker, built but not started, whose pool writes down what Celery asks of it."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from celery import Celery, _state
from celery.app import trace
from celery.concurrency.base import BasePool
from celery.worker import state
from celery.worker.request import Request
from kombu import pools

from workers.app import AppSettings, make_app
from workers.inference.answer import Outcome
from workers.pool.outcome import current_outcome

MODEL = "m"
QUEUE = "fleet.m"


@dataclass(eq=False)
class Applied:
    """One job as Celery hands it to a pool."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    terminated_with: list[int] = field(default_factory=list)

    def terminate(self, signal: int) -> None:
        """Celery ends what it believes to be a result of an asynchronous call."""
        self.terminated_with.append(signal)

    @property
    def request(self) -> Request:
        """Celery's request, which the callbacks are bound to."""
        return self.options["callback"].__self__

    def traced(self, outcome: Outcome | Exception) -> Any:  # noqa: ANN401 - what the tracer returns is under test
        """Run Celery's tracer, as a finisher does."""
        self.options["accept_callback"](7, time.monotonic())
        current_outcome.set(outcome)
        return self.target(*self.args)


class RecordingPool(BasePool):
    """Takes jobs and does nothing with them."""

    def __init__(self, limit: int, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(limit, **options)
        self.applied: list[Applied] = []
        self.terminated: list[tuple[int, int]] = []

    def on_apply(self, target: Callable[..., Any], args: tuple[Any, ...], *_: object, **options: Any) -> Applied:  # noqa: ANN401
        """Celery has a job."""
        self.applied.append(Applied(target, args, options))
        return self.applied[-1]

    def terminate_job(self, pid: int, signal: int) -> None:
        """Celery wants a running job ended."""
        self.terminated.append((pid, signal))


@dataclass
class UnstartedWorker:
    """Our app's worker with its consumer, and the queue that it would consume."""

    app: Celery
    worker: Any
    channel: Any
    client: Any  # redis-py, whose answers have a wide type

    @property
    def pool(self) -> RecordingPool:
        """The pool that Celery made."""
        pool: RecordingPool = self.worker.pool
        return pool

    def send(self, **options: Any) -> str:  # noqa: ANN401 - send_task's
        """Send a job as any Celery app can; its id."""
        arguments = [{"model": MODEL, "prompt": "x"}]
        return str(self.app.send_task("fleet.generate", args=arguments, queue=QUEUE, **options).id)

    def take(self) -> Any:  # noqa: ANN401 - kombu's message
        """The next message, through kombu's Redis transport."""
        return self.channel.basic_get(QUEUE)

    def deliver(self, **options: Any) -> tuple[Any, Applied]:  # noqa: ANN401 - send_task's, and kombu's message
        """Send a job and let Celery's consumer hand it to the pool; the message, and what the pool got."""
        self.send(**options)
        message = self.take()
        self.handle(message)
        return message, self.pool.applied[-1]

    def handle(self, message: Any) -> None:  # noqa: ANN401 - kombu's
        """What Celery's consumer does with a message."""
        self.worker.consumer.update_strategies()
        self.worker.consumer.create_task_handler()(message)

    def run_hub(self) -> None:
        """What Celery put off until the next turn of its main loop."""
        for callback in self.worker.hub._pop_ready():
            callback()

    @contextmanager
    def events(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Celery's events of what happens inside, by type, once it is left."""
        events: dict[str, dict[str, Any]] = {}
        with self.client.pubsub() as listener, self.app.connection_for_write() as connection:
            listener.psubscribe("*celeryev*")
            self.worker.consumer.event_dispatcher = self.app.events.Dispatcher(connection)
            yield events
            published = [entry["data"] for entry in iter(lambda: listener.get_message(timeout=1), None)]
        bodies = [base64.b64decode(json.loads(data)["body"]) for data in published if isinstance(data, bytes)]
        events |= {event["type"]: event for event in map(json.loads, bodies)}

    def stored(self, job_id: str) -> dict[str, Any]:
        """Celery's result of a job; empty while there is none."""
        meta: Any = self.client.get(f"celery-task-meta-{job_id}")
        return dict(json.loads(meta or "{}"))


@contextmanager
def unstarted_worker(redis_url: str) -> Iterator[UnstartedWorker]:
    """Build it; on the way out nothing of it is left in Celery's process-wide state."""
    app = make_app(AppSettings(redis_url, MODEL))
    could_block = _state.task_join_will_block()
    worker = app.Worker(
        hostname="fleet@test", pool_cls=RecordingPool, concurrency=3, queues=[QUEUE], without_gossip=True, quiet=True
    )
    try:
        with app.connection_for_read() as connection, redis.Redis.from_url(redis_url) as client:
            yield UnstartedWorker(app, worker, connection.default_channel, client)
    finally:
        worker.hub.close()
        _state._set_task_join_will_block(could_block)
        state.reset_state()
        trace.reset_worker_optimizations(app)
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
        pools.reset()  # type: ignore[no-untyped-call]
        app.close()
