"""What Celery and kombu do beyond their documentation, and who of ours relies on it; run before raising a version."""

import json
import signal
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Context
from celery.exceptions import WorkerTerminate
from celery.worker import state

from producer import keys
from producer.contract import FailureCode, Priority
from producer.errors import InferenceFailed
from tests.contracts.celery_worker import QUEUE, UnstartedWorker, unstarted_worker
from tests.finishing import generation_result
from workers.app import register_generate
from workers.consumer import DecodedRequest, FleetConsumer
from workers.exit_codes import EXIT_ENGINE
from workers.inference.classify import Failed
from workers.pool.celery_request import delivery_tag
from workers.pool.engine_pool import _delivery

# The worker is built in this process, whose user a container often makes root.
pytestmark = pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
FLEET_HEADER = {"schema_version": 1, "enqueued_at": 12.5}


@pytest.fixture
def worker(redis_url: str) -> Iterator[UnstartedWorker]:
    """Celery's worker with our app, not started."""
    with unstarted_worker(redis_url) as built:
        yield built


def test_celery_and_kombu_are_the_versions_that_these_tests_were_written_for() -> None:
    """Pinned exactly, in ``pyproject.toml`` and here: all of ``workers/pool`` relies on it."""
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert {"celery[redis]==5.7.0", "kombu==5.7.0"} <= set(dependencies)
    assert (version("celery"), version("kombu")) == ("5.7.0", "5.7.0")


def test_the_worker_makes_its_pool_from_the_class_it_is_given(worker: UnstartedWorker) -> None:
    """With the concurrency as limit, and the app: ``EnginePool.bound_to`` and ``workers.process``."""
    assert type(worker.pool).__name__ == "RecordingPool"
    assert worker.pool.limit == 3
    assert worker.pool.app is worker.app
    assert worker.pool.info["max-concurrency"] == 3
    assert worker.worker.exitcode is None


def test_the_pool_gets_the_job_in_this_order_and_under_these_names(worker: UnstartedWorker) -> None:
    """``EnginePool.on_apply`` reads the first three arguments and these options."""
    message, applied = worker.deliver(soft_time_limit=5, time_limit=9)
    task, job_id, request, body, content_type, content_encoding = applied.args
    assert (task, job_id) == ("fleet.generate", message.headers["id"])
    assert request["id"] == job_id
    assert body[0] == request["args"]
    assert (content_type, content_encoding) == (None, None)
    assert {"callback", "accept_callback", "timeout_callback", "error_callback"} <= applied.options.keys()
    assert (applied.options["soft_timeout"], applied.options["timeout"]) == (5, 9)


def test_the_request_has_all_that_a_delivery_is_made_of(worker: UnstartedWorker) -> None:
    """``_delivery`` of the pool: arguments, retries, the ``fleet`` header, the delivery's tag and priority."""
    message, applied = worker.deliver(priority=6, headers={"fleet": FLEET_HEADER}, retries=2)
    delivery = _delivery(applied.args[1], applied.args[2])
    assert delivery.arguments == [{"model": "m", "prompt": "x"}]
    assert (delivery.attempt, delivery.queue_priority) == (3, 6)
    assert (delivery.system, delivery.enqueued_at) == (FLEET_HEADER, 12.5)
    assert delivery.attempt_id == f"{delivery.job_id}/{message.delivery_tag}"
    assert delivery_tag(applied.args[2]) == message.delivery_tag


def test_the_tasks_own_request_class_is_used_and_its_body_is_not_decoded_again(worker: UnstartedWorker) -> None:
    """``DecodedRequest`` sets ``_body`` and clears ``_content_type``: the tracer then takes the body as decoded."""
    _, applied = worker.deliver()
    assert isinstance(applied.request, DecodedRequest)
    assert isinstance(applied.request.body, list)
    failed, _, _ = applied.traced(generation_result("j"))
    assert not failed


def test_the_tracer_returns_failed_value_and_runtime(worker: UnstartedWorker) -> None:
    """``Finisher`` takes the triple apart; the value of a success is a short repr, that of a failure has the error."""
    _, applied = worker.deliver()
    failed, value, runtime_seconds = applied.traced(generation_result("j", "long " * 1000))
    assert (failed, type(value)) == (0, str)
    assert len(value) < 200
    assert 0 <= runtime_seconds < 60
    _, applied = worker.deliver()
    failed, value, _ = applied.traced(Failed(FailureCode.INVALID_REQUEST, "no"))
    assert failed == 1
    assert isinstance(value.exception, InferenceFailed)


@pytest.mark.parametrize("outcome", [generation_result("j"), Failed(FailureCode.INVALID_REQUEST, "no")])
def test_the_message_is_acknowledged_by_the_callback_and_not_before(worker: UnstartedWorker, outcome: Any) -> None:  # noqa: ANN401 - either
    """``Finisher`` writes a group of results first; ``on_success``, for either outcome, leaves the rest to the hub."""
    message, applied = worker.deliver()
    traced = applied.traced(outcome)
    assert worker.stored(applied.request.id)["status"] in {"SUCCESS", "FAILURE"}
    assert not message.acknowledged
    worker.run_hub()
    assert not message.acknowledged
    with ThreadPoolExecutor(1) as finisher:
        finisher.submit(applied.options["callback"], traced).result()
    assert not message.acknowledged
    worker.run_hub()
    assert message.acknowledged


def test_the_runtime_of_the_event_is_the_one_that_the_callback_is_given(worker: UnstartedWorker) -> None:
    """``Finisher`` puts in the time on the engine, which Flower shows; the tracer's own would be a millisecond."""
    with worker.events() as events:
        _, applied = worker.deliver()
        applied.options["callback"]((0, "shown", 41.5))
    assert events["task-succeeded"]["runtime"] == 41.5
    assert events["task-succeeded"]["result"] == "shown"


def test_accepting_gives_the_request_its_token_and_its_start(worker: UnstartedWorker) -> None:
    """``EnginePool`` passes its own token where Celery expects a process id, and monotonic seconds."""
    _, applied = worker.deliver()
    applied.options["accept_callback"](7, time.monotonic() - 2)
    assert applied.request.worker_pid == 7
    assert time.time() - applied.request.time_start == pytest.approx(2, abs=1)
    assert applied.request in state.active_requests


@pytest.mark.parametrize("revoked_first", [True, False])
def test_a_revoked_job_is_ended_by_its_token(worker: UnstartedWorker, revoked_first: bool) -> None:  # noqa: FBT001 - a table
    """``EnginePool.terminate_job``; where the revoke came first, from within ``accept_callback``: see ``on_apply``."""
    _, applied = worker.deliver()
    steps = [
        lambda: applied.options["accept_callback"](7, time.monotonic()),
        lambda: applied.request.terminate(worker.pool, signal="TERM"),
    ]
    for step in reversed(steps) if revoked_first else steps:
        step()
    assert worker.pool.terminated[0] == (7, signal.SIGTERM)
    assert applied.terminated_with[0] == signal.SIGTERM


def test_a_hard_limit_ends_the_job_and_a_soft_one_only_warns(worker: UnstartedWorker) -> None:
    """``Runner`` calls ``on_timeout(soft, seconds)`` for both, and records the soft one's outcome itself."""
    message, applied = worker.deliver()
    applied.options["accept_callback"](7, time.monotonic())
    applied.options["timeout_callback"](True, 0.5)  # noqa: FBT003 - Celery's signature
    assert worker.stored(applied.request.id).get("status") != "FAILURE"
    assert not message.acknowledged
    applied.options["timeout_callback"](False, 0.7)  # noqa: FBT003 - Celery's signature
    assert worker.stored(applied.request.id)["result"]["exc_type"] == "TimeLimitExceeded"
    worker.run_hub()
    assert message.acknowledged


def test_a_job_that_celery_knows_to_be_revoked_never_reaches_the_pool(worker: UnstartedWorker) -> None:
    """``LeaseChannel`` lets it know for the time of one delivery: by id, so another submission may come later."""
    job_id = worker.send()
    message = worker.take()
    state.revoked.add(job_id)
    try:
        worker.handle(message)
    finally:
        state.revoked.discard(job_id)
    assert worker.pool.applied == []
    assert worker.stored(job_id)["status"] == "REVOKED"
    worker.run_hub()
    assert message.acknowledged
    again, _ = worker.deliver(task_id=job_id)
    assert again.headers["id"] == job_id


def test_an_expired_job_is_answered_by_celery(worker: UnstartedWorker) -> None:
    """By this machine's clock, which ``workers.transport.arrivals`` puts right."""
    job_id = worker.send(expires=datetime.now(UTC) - timedelta(seconds=5))
    message = worker.take()
    worker.handle(message)
    assert worker.pool.applied == []
    assert worker.stored(job_id)["status"] == "REVOKED"
    worker.run_hub()
    assert message.acknowledged


@pytest.mark.parametrize(
    ("part", "value", "answer"),
    [
        ("body", "bm8ganNvbg==", "the message body cannot be decoded"),
        ("body", "NDI=", "the message is not a Celery task message"),
        ("task", "no.such", "no task 'no.such' on this worker"),
        ("eta", "never", "the message is not a Celery task message"),
    ],
)
def test_the_consumer_calls_its_hooks_for_what_it_does_not_understand(
    worker: UnstartedWorker, part: str, value: str, answer: str
) -> None:
    """``FleetConsumer`` overrides them to answer the caller; stock Celery only logs."""
    assert isinstance(worker.worker.consumer, FleetConsumer)
    job_id = worker.send()
    raw: Any = worker.client.rpop(QUEUE)
    message = json.loads(raw)
    (message if part == "body" else message["headers"])[part] = value
    worker.client.lpush(QUEUE, json.dumps(message))
    taken = worker.take()
    worker.handle(taken)
    assert taken.acknowledged
    assert worker.pool.applied == []
    assert answer in str(worker.stored(job_id)["result"]["exc_message"])


def test_should_terminate_stops_the_worker_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """``WorkerProcess`` sets it from the engine's watchdog; Celery's main loop looks once a turn."""
    monkeypatch.setattr(state, "should_terminate", EXIT_ENGINE)
    with pytest.raises(WorkerTerminate) as ended:
        state.maybe_shutdown()
    assert ended.value.code == EXIT_ENGINE


@pytest.mark.parametrize("priority", list(Priority))
def test_kombu_names_its_priority_lanes_as_the_producer_does(worker: UnstartedWorker, priority: Priority) -> None:
    """``producer.keys.lane``: the producer pushes without kombu, and workers and Flower find it with kombu."""
    worker.send(priority=keys.PRIORITY_STEPS[priority])
    lanes: Any = worker.client.keys(f"{QUEUE}*")
    assert [lane.decode() for lane in lanes] == [keys.lane("m", priority)]
    assert worker.take() is not None


@pytest.mark.parametrize(("header", "is_queued"), [(None, True), (lambda _request, _error, _traceback: None, False)])
def test_a_link_error_callback_of_one_parameter_goes_through_the_queue(
    worker: UnstartedWorker,
    header: Any,  # noqa: ANN401 - a function or nothing
    is_queued: bool,  # noqa: FBT001 - a table
) -> None:
    """``register_generate`` sets ``__header__``: a task that seems to take three would be called on the spot."""
    if header is not None:
        register_generate(worker.app, "three", __header__=staticmethod(header))
    name = "fleet.generate" if header is None else "three"
    errback = worker.app.signature(name, args=({"model": "m"},), queue=QUEUE)
    request = Context({"id": "failed", "errbacks": [errback], "delivery_info": {}})
    worker.app.backend.mark_as_failure("failed", InferenceFailed(FailureCode.INTERNAL, "no"), request=request)
    assert (worker.take() is not None) == is_queued
