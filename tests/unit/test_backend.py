"""The result backend: results of one group go out together, and a failed writing can be repeated."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.app.task import Context
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.waiting import free_port
from workers.backend import FleetBackend
from workers.embedded import EmbeddedServer


class LosesFirstReply(FleetBackend):
    """The real backend, whose first flush acts and then fails."""

    has_lost = False

    def flush(self) -> None:
        """Write, and fail the first time."""
        super().flush()
        if not self.has_lost:
            self.has_lost = True
            raise redis.exceptions.ConnectionError("the reply was lost")


@contextmanager
def backend_at(redis_url: str, kind: type[FleetBackend] = FleetBackend) -> Iterator[FleetBackend]:
    """A backend that leaves no connection behind, and does not reconnect on its own."""
    with Celery("results", set_as_current=False) as app:
        backend = kind(app=app, url=redis_url)
        backend.client.set_retry(Retry(NoBackoff(), 0))
        yield backend
        backend.client.connection_pool.disconnect()


@pytest.fixture
def backend(redis_url: str) -> Iterator[FleetBackend]:
    """At the session's server."""
    with backend_at(redis_url) as backend:
        yield backend


def test_a_result_outside_a_group_is_written_at_once(backend: FleetBackend) -> None:
    """As Celery's own backend does."""
    backend.set("key", "value")
    assert backend.client.get("key") == b"value"


def test_results_of_a_group_are_written_by_the_flush(backend: FleetBackend) -> None:
    """With their lifetime, and published to who waits."""
    with backend.client.pubsub() as listener:
        listener.subscribe("a")
        assert listener.get_message(timeout=10)["type"] == "subscribe"
        with backend.grouped():
            backend.set("a", "1")
            backend.set("b", "2", expires=50)
            assert backend.client.exists("a", "b") == 0
            backend.flush()
            assert backend.client.mget("a", "b") == [b"1", b"2"]
        assert listener.get_message(timeout=10)["data"] == b"1"
    assert backend.client.ttl("a") > 50 >= backend.client.ttl("b") > 0


def test_a_group_belongs_to_its_thread(backend: FleetBackend) -> None:
    """Each finisher has its own; a side thread has none."""
    with backend.grouped():
        backend.set("held", "1")
        thread = threading.Thread(target=backend.set, args=("at-once", "2"))
        thread.start()
        thread.join()
        assert backend.client.exists("held") == 0
        assert backend.client.exists("at-once") == 1


def test_a_group_that_is_left_without_a_flush_is_dropped(backend: FleetBackend) -> None:
    """Nothing of it leaks into the next group of the thread."""
    with backend.grouped():
        backend.set("dropped", "1")
    with backend.grouped():
        backend.flush()
    assert backend.client.exists("dropped") == 0


def test_a_failed_flush_can_be_repeated(tmp_path: Path) -> None:
    """The results are still there when the server is."""
    server = EmbeddedServer(tmp_path, free_port())
    with backend_at(server.url) as backend, backend.grouped():
        backend.set("a", "1")
        for _ in range(2):
            with pytest.raises(redis.exceptions.ConnectionError):
                backend.flush()
        with server:
            backend.flush()
            assert backend.client.get("a") == b"1"
            backend.flush()  # nothing is left to write


def test_the_results_of_a_chords_members_are_written_before_they_are_counted(backend: FleetBackend) -> None:
    """The chord's body may start the moment the last member is counted."""
    with backend.grouped():
        backend.store_result("j", {"text": "x"}, "SUCCESS")
        backend.on_chord_part_return(Context({"id": "j"}), "SUCCESS", {"text": "x"})
        assert json.loads(backend.client.get("celery-task-meta-j"))["status"] == "SUCCESS"


def test_a_lost_connection_at_a_chords_member_is_retried(redis_url: str) -> None:
    """Celery would make a failed job of one whose chord part raises."""
    with backend_at(redis_url, LosesFirstReply) as backend, backend.grouped():
        backend.store_result("j", {"text": "x"}, "SUCCESS")
        backend.on_chord_part_return(Context({"id": "j"}), "SUCCESS", {"text": "x"})
        assert json.loads(backend.client.get("celery-task-meta-j"))["status"] == "SUCCESS"


def test_publishing_a_task_subscribes_to_nothing(backend: FleetBackend) -> None:
    """Ten thousand jobs would be ten thousand channels."""
    backend.on_task_call(None, "j")
    assert backend.client.pubsub_channels() == []
