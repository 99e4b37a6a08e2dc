"""Bad input: each a clear failure for its caller; the worker and its other jobs stay untouched."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from producer import GenerationRequest, InferenceFailed, InvalidRequest, Producer, SamplingOptions, keys
from producer.message import new_job, task_message
from tests.running import RunningFleet
from tests.waiting import eventually


@pytest.fixture
def client(fleet: RunningFleet) -> Iterator["redis.Redis"]:
    """Raw access to the fleet's server."""
    with redis.Redis.from_url(fleet.redis_url) as connected:
        yield connected


LEFT_OUT = object()
"""Stands for a header that is not there."""


def push(client: "redis.Redis", fleet: RunningFleet, **changes: Any) -> str:  # noqa: ANN401 - parts of a message
    """Push a message by hand, with parts of it replaced; its id."""
    job = new_job(GenerationRequest(model=fleet.served, prompt="x", sampling=SamplingOptions(max_tokens=1)))
    message = json.loads(task_message(job).at(0.0))
    headers = changes.pop("headers", {})
    merged = message["headers"] | headers
    message["headers"] = {name: value for name, value in merged.items() if value is not LEFT_OUT}
    message |= changes
    client.lpush(keys.queue(fleet.served), json.dumps(message))
    client.lpush(keys.queue(fleet.served) + keys.PRIORITY_SEPARATOR + "3", task_message(new_job(job.request)).at(0.0))
    return job.job_id


def failure_of(client: "redis.Redis", producer: Producer, job_id: str) -> InferenceFailed:
    """The failure that the caller of this job gets. Nothing is known of a foreign sender's job until it is answered."""
    eventually(lambda: client.exists(keys.result(job_id)), seconds=60, what="an answer")
    with pytest.raises(InferenceFailed) as failed:
        producer.result(job_id, timeout_seconds=60)
    return failed.value


def is_serving(fleet: RunningFleet, producer: Producer) -> bool:
    """Whether the same worker process still answers."""
    job = producer.submit(model=fleet.served, prompt="still there?", sampling={"max_tokens": 2})
    return bool(producer.result(job, timeout_seconds=60).usage.completion_tokens)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"body": "{this is not JSON"}, "cannot be decoded"),
        ({"body": "5"}, "not a Celery task message"),
        ({"body": '"text"'}, "not a Celery task message"),
        ({"body": "[1, 2]"}, "not a Celery task message"),
        ({"body": "null"}, "not a Celery task message"),
        ({"body": "[[], {}, {}]"}, "takes one request"),
        ({"body": '[["text"], {}, {}]'}, "must be an object"),
        ({"body": '[[{"model": "m"}], {}, {}]'}, "exactly one of prompt"),
        ({"content-type": "application/x-python-serialize", "body": "cos\nsystem\n"}, "not a Celery task message"),
        ({"headers": {"task": "no.such.task"}}, "no task 'no.such.task'"),
        ({"headers": {"task": LEFT_OUT}}, "names no task"),
        ({"headers": {"eta": "tomorrow"}}, "invalid ETA"),
    ],
)
def test_a_malformed_message_is_a_clear_failure(
    fleet: RunningFleet, producer: Producer, client: "redis.Redis", changes: dict[str, Any], complaint: str
) -> None:
    """Whatever a foreign sender pushes, its caller learns what is wrong, and the worker process lives on."""
    before = [process.pid for process in fleet.worker_processes()]
    assert len(before) == 1
    failed = failure_of(client, producer, push(client, fleet, **changes))
    assert failed.code == "invalid_request"
    assert complaint in failed.message
    assert is_serving(fleet, producer)
    assert [process.pid for process in fleet.worker_processes()] == before


@pytest.mark.parametrize(
    ("request_fields", "code", "complaint"),
    [
        ({"prompt": "x", "sampling": {"max_tokens": -1}}, "invalid_request", "sampling.max_tokens"),
        ({"prompt": "x", "sampling": {"max_tokens": "many"}}, "invalid_request", "sampling.max_tokens"),
        ({"prompt": "word " * 5000}, "context_length_exceeded", "at most 2047"),
        ({"prompt": "x" * 5_000_000}, "invalid_request", "5,000,000"),
        ({"prompt": "x" * 50_000_000}, "invalid_request", "more than worker.max_message_bytes allows"),
        ({"prompt": "x", "max_tokens": 5}, "invalid_request", "sampling.max_tokens"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, "invalid_request", "exactly one"),
    ],
)
def test_a_request_that_cannot_work_is_answered_with_its_code(
    fleet: RunningFleet, client: "redis.Redis", request_fields: dict[str, Any], code: str, complaint: str
) -> None:
    """Sent past the producer's own check by a stock Celery app, beside a good job that must not notice."""
    request = {"model": fleet.served} | request_fields
    with fleet.celery() as app, fleet.producer() as producer:
        good = producer.submit(model=fleet.served, prompt="good", sampling={"max_tokens": 30, "ignore_eos": True})
        sent = app.send_task("fleet.generate", args=[request], queue=f"fleet.{fleet.served}", argsrepr="(…)")
        failed = failure_of(client, producer, sent.id)
        assert (failed.code, complaint in failed.message) == (code, True), failed.message
        assert producer.result(good, timeout_seconds=60).usage.completion_tokens == 30


def test_the_producer_refuses_bad_input_before_it_is_queued(fleet: RunningFleet, producer: Producer) -> None:
    """The earliest place that can know."""
    for fields in ({"sampling": {"max_tokens": -1}}, {"sampling": {"temprature": 1}}, {"prompt": "x" * 50_000_000}):
        with pytest.raises(InvalidRequest):
            producer.submit(**({"model": fleet.served, "prompt": "x"} | fields))


def test_nobody_waits_for_a_message_without_an_id(
    fleet: RunningFleet, producer: Producer, client: "redis.Redis"
) -> None:
    """It is dropped with a log line; there is no caller to tell."""
    push(client, fleet, headers={"id": None}, body="nonsense")
    assert is_serving(fleet, producer)


def test_job_ids_that_celery_never_made_are_fine(fleet: RunningFleet, producer: Producer) -> None:
    """A foreign sender's own ids."""
    job_id = f"order/{uuid.uuid4()}#1"
    request = {"model": fleet.served, "prompt": "x", "sampling": {"max_tokens": 1}}
    with fleet.celery() as app:
        app.send_task("fleet.generate", args=[request], queue=f"fleet.{fleet.served}", task_id=job_id).get(timeout=60)
    assert producer.result(job_id, timeout_seconds=60).id == job_id


@pytest.mark.parametrize("year", [1, 18, 1969, 2001])
def test_a_deadline_that_passed_long_ago_has_passed(fleet: RunningFleet, year: int) -> None:
    """Also one before the epoch that clocks count from: the job is queued, and answered as expired."""
    with fleet.producer() as producer:
        job = producer.submit(model=fleet.served, prompt="x", deadline=datetime(year, 6, 16, tzinfo=UTC))
        with pytest.raises(InferenceFailed) as failed:
            producer.result(job, timeout_seconds=60)
        assert failed.value.code == "expired"
        assert is_serving(fleet, producer)
