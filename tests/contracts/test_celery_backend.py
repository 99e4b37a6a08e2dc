"""What ``workers.backend`` relies on in Celery's Redis backend and in redis-py."""

import inspect
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.backends import by_url
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from kombu import pools

from producer import keys
from tests.deliveries import HeldQueue
from tests.leasing import MODEL
from workers.app import AppSettings, make_app
from workers.backend import FleetBackend


@pytest.fixture
def held(redis_url: str) -> Iterator[HeldQueue]:
    """What the app's process holds: the job ``j``."""
    with HeldQueue.at(redis_url) as held:
        held.hold("j")
        yield held


@pytest.fixture
def app(redis_url: str, held: HeldQueue) -> Iterator[Celery]:
    """Our app, with its backend on a real server."""
    made = make_app(AppSettings(redis_url, MODEL), held.leases)
    yield made
    made.backend.result_consumer.stop()
    made.backend.client.connection_pool.disconnect()
    pools.reset()  # type: ignore[no-untyped-call]
    made.close()


def test_a_backend_class_is_named_in_front_of_the_address() -> None:
    """``workers.app`` sets ``result_backend`` to ``module:Class+redis://…``."""
    named = by_url("workers.backend:FleetBackend+redis://host:1/2")
    assert named == (FleetBackend, "redis://host:1/2")


@pytest.mark.parametrize("name", ["_store_result", "on_task_call", "on_chord_part_return"])
def test_overridden_methods_take_what_celery_passes(name: str) -> None:
    """``FleetBackend``: the same parameters up to the first that the stock method may leave out."""
    stock, own = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (RedisBackend, FleetBackend))
    known = [parameter for parameter in own if parameter not in {"args", "options", "kwargs"}]
    assert stock[: len(known)] == known


@pytest.mark.parametrize(
    "store",
    [
        lambda backend: backend.store_result("j", {"text": "x"}, "SUCCESS"),
        lambda backend: backend.mark_as_done("j", {"text": "x"}, request=Context({"id": "j"})),
        lambda backend: backend.mark_as_failure("j", ValueError("no"), traceback="lines", request=Context({"id": "j"})),
        lambda backend: backend.mark_as_revoked("j", "cancelled", request=Context({"id": "j"})),
    ],
)
def test_every_result_is_stored_through_store_result(app: Celery, held: HeldQueue, store: Any) -> None:  # noqa: ANN401 - a function
    """``FleetBackend._store_result`` alone decides that a result ends a delivery; it is there after the flush."""
    with app.backend.grouped():
        store(app.backend)
        assert held.queue.result("j") is None
        app.backend.flush()
    assert held.queue.result("j") is not None
    assert len(held.ledger) == 0


def test_a_stored_result_is_what_celery_reads(app: Celery) -> None:
    """``FleetBackend.flush`` writes what the stock backend would have."""
    with app.backend.grouped():
        app.backend.store_result("j", {"text": "x"}, "SUCCESS")
        app.backend.flush()
    assert app.AsyncResult("j").get(timeout=30) == {"text": "x"}


def test_a_stored_result_has_all_that_the_stock_backends_has(app: Celery, held: HeldQueue, redis_url: str) -> None:
    """Name by name; traceback and error included."""
    with Celery("stock", backend=redis_url, set_as_current=False) as stock:
        for backend, job_id in ((app.backend, "j"), (stock.backend, "stock")):
            backend.mark_as_failure(job_id, ValueError("no"), traceback="lines", request=Context({"id": job_id}))
        stock.backend.client.connection_pool.disconnect()
    own, theirs = (json.loads(held.queue.result(job_id) or b"") for job_id in ("j", "stock"))
    for meta in (own, theirs):
        assert meta.pop("date_done")
    assert (own.pop("task_id"), theirs.pop("task_id")) == ("j", "stock")
    assert own == theirs


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_stored_result_begins_with_its_state(app: Celery, held: HeldQueue, state: str) -> None:
    """The scripts ``finish`` and ``screen`` look for it in the first 64 bytes."""
    app.backend.store_result("j", ValueError("x" * 100) if state != "SUCCESS" else "x" * 100, state)
    assert (held.queue.result("j") or b"")[:64].startswith(f'{{"status": "{state}"'.encode())


@pytest.mark.parametrize("is_shared", [True, False])
def test_threads_share_a_backend_that_is_said_to_be_thread_safe(redis_url: str, is_shared: bool) -> None:  # noqa: FBT001 - a table
    """Otherwise each finisher had one of its own, and what it held back was not what Celery's tracer stored."""
    with Celery("threads", backend=redis_url, set_as_current=False) as app, ThreadPoolExecutor(1) as thread:
        app.conf.result_backend_thread_safe = is_shared
        assert (thread.submit(lambda: app.backend).result() is app.backend) == is_shared


def test_what_a_finisher_groups_is_what_the_task_stores_on_its_thread(app: Celery, held: HeldQueue) -> None:
    """The backend that the pool was given at its start, and the one that Celery's tracer takes from the task."""
    given, task = app.backend, app.tasks[keys.TASK_NAME]

    def finish() -> bool:
        with given.grouped():
            task.backend.store_result("j", {"text": "x"}, "SUCCESS")
            is_held_back = held.queue.result("j") is None
            given.flush()
        return is_held_back

    with ThreadPoolExecutor(1) as finisher:
        assert finisher.submit(finish).result()
    assert held.queue.result("j") is not None


@pytest.mark.parametrize(("backend", "subscribes"), [("", True), ("workers.backend:FleetBackend+", False)])
def test_publishing_a_task_calls_on_task_call(redis_url: str, backend: str, subscribes: bool) -> None:  # noqa: FBT001 - a table
    """Where the stock backend subscribes to the result, ``FleetBackend`` does nothing."""
    with (
        Celery("sender", broker=redis_url, backend=backend + redis_url, set_as_current=False) as app,
        redis.Redis.from_url(redis_url) as client,
    ):
        sent = app.send_task("fleet.generate", queue="fleet.m")  # held: it unsubscribes when it is forgotten
        channels: Any = client.pubsub_channels("celery-task-meta-*")
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()
        pools.reset()  # type: ignore[no-untyped-call]
    assert channels == ([f"celery-task-meta-{sent.id}".encode()] if subscribes else [])


def test_ensure_repeats_what_failed_for_want_of_redis(app: Celery) -> None:
    """``FleetBackend.on_chord_part_return`` leaves the repetition to ``ensure(function, arguments)``."""
    calls: list[str] = []

    def fail_once(name: str) -> str:
        calls.append(name)
        if len(calls) == 1:
            raise redis.exceptions.ConnectionError("gone for a moment")
        return name

    policy = {"interval_start": 0, "interval_step": 0.01, "interval_max": 0.01}
    assert app.backend.ensure(fail_once, ("a",), **policy) == "a"
    assert calls == ["a", "a"]
