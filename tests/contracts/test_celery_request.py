"""What the pool tells Celery's ``Request`` beside outcomes, and what Celery makes of it."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state

from tests.contracts.celery_worker import Applied, UnstartedWorker, unstarted_worker
from workers.pool.celery_request import callbacks_of, has_successors
from workers.pool.job import Callbacks

# The worker is built in this process, whose user a container often makes root.
pytestmark = pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")


@pytest.fixture
def worker(redis_url: str) -> Iterator[UnstartedWorker]:
    """Celery's worker with our app, not started."""
    with unstarted_worker(redis_url) as built:
        yield built


def callbacks(worker: UnstartedWorker, applied: Applied) -> Callbacks:
    """What the pool makes of what Celery gave it; the job has been accepted."""
    applied.options["accept_callback"](7, time.monotonic())
    return callbacks_of(worker.pool, applied.target, applied.args, applied.options)


def test_a_job_that_is_put_off_is_acknowledged_without_a_result(worker: UnstartedWorker) -> None:
    """``Callbacks.put_off``: Celery lets go of it, and tells monitors that it is retried."""
    with worker.events() as events:
        message, applied = worker.deliver()
        callbacks(worker, applied).put_off("no room")
        assert applied.request not in state.active_requests
        assert worker.stored(applied.request.id) == {}
        worker.run_hub()
        assert message.acknowledged
    assert events["task-retried"]["uuid"] == applied.request.id
    assert "no room" in events["task-retried"]["exception"]


def test_a_cancelled_job_has_a_result_and_is_acknowledged(worker: UnstartedWorker) -> None:
    """``Callbacks.revoke``: as if ``revoke(terminate=True)`` had come."""
    with worker.events() as events:
        message, applied = worker.deliver()
        callbacks(worker, applied).revoke()
        assert worker.pool.terminated == [(7, signal.SIGTERM)]
        assert applied.request not in state.active_requests
        assert worker.stored(applied.request.id)["status"] == "REVOKED"
        worker.run_hub()
        assert message.acknowledged
    assert events["task-revoked"]["terminated"] is True


def test_a_job_that_somebody_else_has_is_forgotten_in_silence(worker: UnstartedWorker) -> None:
    """``Callbacks.forget``: no result, no acknowledgement, no event."""
    with worker.events() as events:
        message, applied = worker.deliver()
        callbacks(worker, applied).forget()
        assert applied.request not in state.active_requests
        assert applied.request not in state.reserved_requests
        assert worker.stored(applied.request.id) == {}
        worker.run_hub()
        assert not message.acknowledged
    assert set(events) <= {"task-sent", "task-received", "task-started"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"link": True}, True),
        ({"link_error": True}, True),
        ({"chain": True}, True),
        ({"group_id": "g"}, False),
    ],
)
def test_the_body_tells_what_is_sent_when_the_job_ends(
    worker: UnstartedWorker,
    options: dict[str, Any],
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    """``has_successors``: links and the rest of a chain are sent before the result is written."""
    after = worker.app.signature("any.task", queue="after")
    follow = {"link": after, "link_error": after, "chain": [dict(after)]}
    _, applied = worker.deliver(**{name: follow.get(name, value) for name, value in options.items()})
    assert has_successors(applied.args[3]) == expected
