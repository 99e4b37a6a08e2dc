"""Task events in groups: Celery's receivers make of them what they make of the stock dispatcher's."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.events.dispatcher import EventDispatcher
from kombu import pools

from tests.contracts.celery_worker import unstarted_worker
from tests.waiting import eventually, free_port
from workers.app import AppSettings, make_app
from workers.embedded import EmbeddedServer
from workers.events import GroupedDispatcher

# The worker is built in this process, whose user a container often makes root.
pytestmark = pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")

CHANGING = ("timestamp", "clock")


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """A worker's app."""
    with make_app(AppSettings(redis_url, "m")) as app:
        yield app
        pools.reset()  # type: ignore[no-untyped-call]


class Monitor:
    """What is published of events, as messages and as Celery's receivers read them."""

    def __init__(self, app: Celery, url: str) -> None:
        self._app = app
        self._client = redis.Redis.from_url(url)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe("*celeryev*")
        self._pubsub.get_message(timeout=1)

    def messages(self) -> list[dict[str, Any]]:
        """Published since the last call; kombu's envelopes."""
        data = [message["data"] for message in iter(lambda: self._pubsub.get_message(timeout=0.2), None)]
        return [json.loads(envelope) for envelope in data]

    def events(self) -> list[dict[str, Any]]:
        """Published since the last call; as a receiver hands them to Flower."""
        received: list[dict[str, Any]] = []
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": received.append})
            for envelope in self.messages():
                receiver._receive(json.loads(base64.b64decode(envelope["body"])), None)
        return received

    def close(self) -> None:
        """Leave no connection behind."""
        self._pubsub.close()
        self._client.close()


@pytest.fixture
def monitor(app: Celery, redis_url: str) -> Iterator[Monitor]:
    """On the session's server."""
    watching = Monitor(app, redis_url)
    yield watching
    watching.close()


def dispatcher(app: Celery, kind: type[EventDispatcher] = GroupedDispatcher) -> Any:  # noqa: ANN401 - Celery's
    """As the worker's consumer makes it."""
    return kind(app.connection_for_write(), hostname="w@test", app=app, buffer_group=["task"])


def send(events: Any, *job_ids: str) -> None:  # noqa: ANN401 - Celery's
    """What a worker tells of a job that succeeded."""
    for job_id in job_ids:
        events.send("task-received", uuid=job_id, name="fleet.generate", args="", kwargs="{}", eta=None, expires=None)
        events.send("task-succeeded", uuid=job_id, result="a result", runtime=0.5)


def without_changing(event: dict[str, Any]) -> dict[str, Any]:
    """An event but for when it was sent and received."""
    return {name: value for name, value in event.items() if name not in (*CHANGING, "local_received")}


def test_the_worker_dispatches_with_ours(redis_url: str) -> None:
    """``Celery(events=...)`` names it; the consumer's bootstep makes one for each connection."""
    with unstarted_worker(redis_url) as worker:
        assert issubclass(worker.app.events.Dispatcher, GroupedDispatcher)


def test_events_are_the_stock_dispatchers_to_the_letter(app: Celery, monitor: Monitor) -> None:
    """The same fields with the same values, in the same order."""
    received = []
    for kind in (EventDispatcher, GroupedDispatcher):
        with dispatcher(app, kind) as events:
            send(events, "one", "two")
            events.flush()
            received.append([without_changing(event) for event in monitor.events()])
    stock, ours = received
    assert [event["type"] for event in ours] == ["task-received", "task-succeeded"] * 2
    assert stock == ours


def test_a_hundred_jobs_are_one_message(app: Celery, monitor: Monitor) -> None:
    """Nothing before the flush, whatever the stock dispatcher's limit; nothing twice."""
    with dispatcher(app) as events:
        send(events, *(str(number) for number in range(100)))
        assert monitor.messages() == []
        events.flush()
        events.flush()
        [message] = monitor.messages()
    assert len(json.loads(base64.b64decode(message["body"]))) == 200
    assert message["properties"]["delivery_info"] == {"exchange": "celeryev", "routing_key": "task.multi"}
    assert (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")


def test_what_is_not_about_a_task_is_told_at_once(app: Celery, monitor: Monitor) -> None:
    """A worker that goes offline does not wait for company."""
    with dispatcher(app) as events:
        events.send("worker-offline")
        assert [event["type"] for event in monitor.events()] == ["worker-offline"]


def test_an_event_that_has_no_utf8_is_told_all_the_same(app: Celery, monitor: Monitor) -> None:
    """A lone surrogate in a task's name or in a result."""
    with dispatcher(app) as events:
        events.send("task-succeeded", uuid="j", result="\ud800", runtime=0.5)
        events.flush()
        assert [event["result"] for event in monitor.events()] == ["\ud800"]


def test_what_could_not_be_sent_is_sent_by_the_next_connections_dispatcher(tmp_path: Path) -> None:
    """Both what was tried and what was still held back; in order."""
    server = EmbeddedServer(tmp_path / "valkey", free_port())
    with server, make_app(AppSettings(server.url, "m")) as app:
        app.conf.broker_transport_options = {"socket_connect_timeout": 1}
        before = dispatcher(app)
        send(before, "warm-up")
        before.flush()
        server.kill()
        send(before, "tried")
        before.flush()
        send(before, "held")
        server.start()
        watching = Monitor(app, server.url)
        with dispatcher(app) as after:
            after.extend_buffer(before)
            after.flush()
            assert [event["uuid"] for event in watching.events()] == ["tried", "tried", "held", "held"]
        watching.close()
        before.close()
        pools.reset()  # type: ignore[no-untyped-call]


def test_the_consumer_tells_soon_and_at_the_latest_when_it_shuts_down(monitor: Monitor, redis_url: str) -> None:
    """``Consumer.on_send_event_buffered`` and ``Consumer.shutdown``, which comes after the pool's stop."""
    with unstarted_worker(redis_url) as worker:
        consumer = worker.worker.consumer
        consumer.event_dispatcher = consumer.app.events.Dispatcher(
            consumer.app.connection_for_write(), buffer_group=["task"], on_send_buffered=consumer.on_send_event_buffered
        )
        consumer._telling.start()
        send(consumer.event_dispatcher, "soon")
        eventually(lambda: [event["uuid"] for event in monitor.events()] == ["soon", "soon"], what="both events")
        send(consumer.event_dispatcher, "last")
        consumer.shutdown()
        assert [event["uuid"] for event in monitor.events() if "uuid" in event] == ["last", "last"]
