"""What the pool does itself for a plain success is what Celery's tracer would have done; all else is left to Celery."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals
from celery.app.trace import task_has_custom
from celery.utils.dispatch import Signal

from producer import keys
from producer.contract import FailureCode
from tests.contracts.celery_worker import Applied, UnstartedWorker, unstarted_worker
from tests.deliveries import HeldQueue
from tests.finishing import generation_result
from tests.leasing import LeaseQueue
from workers.inference.answer import Outcome
from workers.inference.classify import Failed
from workers.pool.outcome import current_outcome, current_tag
from workers.pool.short_trace import trace

# The worker is built in this process, whose user a container often makes root.
pytestmark = pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")

RESULT = generation_result("j", 'an answer with "quotes", a \u2028 and \U0001f600')


@pytest.fixture
def worker(redis_url: str) -> Iterator[UnstartedWorker]:
    """Celery's worker with our app, not started; its results end what it holds."""
    with unstarted_worker(redis_url) as built, HeldQueue.at(redis_url) as held:
        built.app.backend.leases = held.leases
        yield built


class Target:
    """Celery's tracer; counts how often it was called."""

    def __init__(self, applied: Applied) -> None:
        self._applied = applied
        self.calls = 0

    def __call__(self, *args: Any) -> Any:  # noqa: ANN401 - the tracer's
        """As the tracer."""
        self.calls += 1
        return self._applied.target(*args)


def traced(worker: UnstartedWorker, applied: Applied, outcome: Outcome) -> tuple[Any, Target]:
    """What the pool's tracer returns for a job that is held, and the tracer that it may have called."""
    held_queue = HeldQueue(LeaseQueue(worker.client), worker.app.backend.leases)
    [held] = held_queue.hold(applied.request.id)
    current_outcome.set(outcome)
    current_tag.set(held.tag)
    target = Target(applied)
    return trace(worker.app.backend, target, *applied.args), target


def without_moment(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored result but for when, and for whose it is."""
    return {name: value for name, value in stored.items() if name not in ("date_done", "task_id")}


def test_a_plain_success_is_stored_as_celery_stores_it(worker: UnstartedWorker) -> None:
    """Field for field, in the same order; by the same fence, and acknowledged."""
    _, by_celery = worker.deliver()
    by_celery.traced(RESULT)
    _, plain = worker.deliver()
    (failed, _, _), target = traced(worker, plain, RESULT)
    one, other = worker.stored(by_celery.request.id), worker.stored(plain.request.id)
    assert (failed, target.calls) == (0, 0)
    assert without_moment(one) == without_moment(other)
    assert list(one) == list(other)
    assert other["task_id"] == plain.request.id
    assert one["date_done"][-6:] == other["date_done"][-6:] == "+00:00"
    assert other["result"] == RESULT.model_dump(mode="json", exclude_none=True)
    assert len(worker.app.backend.leases.ledger) == 0


@pytest.mark.parametrize("options", [{}, {"group_id": "g"}])
def test_monitors_see_how_long_an_answer_is_and_not_what_it_says(
    worker: UnstartedWorker, options: dict[str, Any]
) -> None:
    """By the short way and by Celery's."""
    _, applied = worker.deliver(**options)
    answer = generation_result("j", "hush")
    (failed, value, _), target = traced(worker, applied, answer)
    assert (failed, target.calls) == (0, len(options))
    assert value == f"{answer.usage.completion_tokens} tokens, stop"


@pytest.mark.parametrize("related", ["link", "chain", "group_id", "parent_id", "chord", "ignore_result"])
def test_a_job_that_something_hangs_on_is_traced_by_celery(worker: UnstartedWorker, related: str) -> None:
    """Successors, groups and what stores no result."""
    after = worker.app.signature("any.task", queue="after")
    options = {
        "link": after,
        "chain": [dict(after)],
        "group_id": "g",
        "parent_id": "p",
        "chord": dict(after, options={"group_index": 0}),
        "ignore_result": True,
    }
    _, applied = worker.deliver(**{related: options[related]})
    _, target = traced(worker, applied, RESULT)
    assert target.calls == 1


def test_a_failure_is_traced_by_celery(worker: UnstartedWorker) -> None:
    """With its signals, its log and its error callbacks."""
    _, applied = worker.deliver()
    (failed, _, _), target = traced(worker, applied, Failed(FailureCode.INVALID_REQUEST, "no"))
    assert (failed, target.calls) == (1, 1)
    assert worker.stored(applied.request.id)["status"] == "FAILURE"


def test_a_result_that_has_no_utf8_is_traced_by_celery(worker: UnstartedWorker) -> None:
    """A lone surrogate: Celery's JSON escapes it."""
    _, applied = worker.deliver()
    _, target = traced(worker, applied, generation_result("j", "\ud800"))
    assert target.calls == 1
    assert worker.stored(applied.request.id)["result"]["choices"][0]["text"] == "\ud800"


@pytest.mark.parametrize("signal", [signals.task_prerun, signals.task_postrun, signals.task_success])
def test_who_listens_to_a_task_signal_hears_it(worker: UnstartedWorker, signal: Signal) -> None:
    """Celery sends it."""
    heard = []

    def listen(**sent: Any) -> None:  # noqa: ANN401 - a signal's
        heard.append(sent["sender"].name)

    _, applied = worker.deliver()
    signal.connect(listen)
    try:
        traced(worker, applied, RESULT)
    finally:
        signal.disconnect(listen)
    assert heard == ["fleet.generate"]


def test_nothing_else_is_asked_of_the_tracer_by_our_settings(worker: UnstartedWorker) -> None:
    """Each of these would make it do more for a plain success."""
    conf, task = worker.app.conf, worker.app.tasks[keys.TASK_NAME]
    does_more = [conf.worker_deduplicate_successful_tasks, conf.result_extended, conf.task_track_started]
    assert not any([*does_more, task.track_started, task.ignore_result])
    assert not any(task_has_custom(task, hook) for hook in ("before_start", "on_success", "after_return"))
