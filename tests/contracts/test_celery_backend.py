"""What ``workers.backend`` relies on in Celery's Redis backend and in redis-py."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.backends import by_url
from celery.backends.redis import RedisBackend
from kombu import pools

from workers.app import AppSettings, make_app
from workers.backend import FleetBackend


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """Our app, with its backend on a real server."""
    made = make_app(AppSettings(redis_url, "m"))
    yield made
    made.backend.result_consumer.stop()
    made.backend.client.connection_pool.disconnect()
    pools.reset()  # type: ignore[no-untyped-call]
    made.close()


def stored(redis_url: str, job_id: str) -> Any:  # noqa: ANN401 - redis-py's
    """What Redis holds of a result."""
    with redis.Redis.from_url(redis_url) as client:
        return client.get(f"celery-task-meta-{job_id}")


def test_a_backend_class_is_named_in_front_of_the_address() -> None:
    """``workers.app`` sets ``result_backend`` to ``module:Class+redis://…``."""
    named = by_url("workers.backend:FleetBackend+redis://host:1/2")
    assert named == (FleetBackend, "redis://host:1/2")


@pytest.mark.parametrize("name", ["set", "on_task_call", "on_chord_part_return"])
def test_overridden_methods_take_what_celery_passes(name: str) -> None:
    """``FleetBackend``: the same parameters up to the first that the stock method may leave out."""
    stock, own = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (RedisBackend, FleetBackend))
    known = [parameter for parameter in own if parameter not in {"kwargs", "retry_policy"}]
    assert stock[: len(known)] == known


def test_every_result_is_stored_through_set(app: Celery, redis_url: str) -> None:
    """``FleetBackend.set`` alone decides that a result waits; it is there after the flush, and announced."""
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        listener.subscribe("celery-task-meta-j")
        assert listener.get_message(timeout=5) is not None  # the subscription itself
        with app.backend.grouped():
            app.backend.store_result("j", {"text": "x"}, "SUCCESS")
            assert stored(redis_url, "j") is None
            app.backend.flush()
        announced = listener.get_message(timeout=5)
        assert announced is not None
        assert announced["data"] == stored(redis_url, "j")
        assert 0 < int(client.ttl("celery-task-meta-j")) <= app.conf.result_expires


def test_a_stored_result_is_what_celery_reads(app: Celery) -> None:
    """``FleetBackend.flush`` writes what the stock backend would have."""
    with app.backend.grouped():
        app.backend.store_result("j", {"text": "x"}, "SUCCESS")
        app.backend.flush()
    assert app.AsyncResult("j").get(timeout=5) == {"text": "x"}


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


def test_a_pipeline_forgets_its_commands_though_it_failed(redis_url: str) -> None:
    """redis-py: ``FleetBackend.flush`` puts ``command_stack`` back for the next attempt."""
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipe:
        pipe.execute_command("NO.SUCH.COMMAND")
        assert len(pipe) == 1
        with pytest.raises(redis.exceptions.ResponseError):
            pipe.execute()
        assert pipe.command_stack == []


def test_a_pipeline_takes_its_commands_back(redis_url: str) -> None:
    """redis-py: what ``FleetBackend.flush`` puts back into ``command_stack`` goes out with the next ``execute``."""
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipe:
        pipe.set("a", "b")
        commands = list(pipe.command_stack)
        pipe.reset()
        pipe.command_stack = commands
        assert pipe.execute() == [True]
        assert client.get("a") == b"b"


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
