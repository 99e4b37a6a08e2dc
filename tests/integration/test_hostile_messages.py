"""What somebody with a producer's credential can push by hand: each ends for itself; the worker lives on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import GenerationRequest, InferenceFailed, Producer, SamplingOptions, keys
from producer.message import new_job, task_message
from tests.running import RunningFleet
from tests.waiting import eventually

DEEP = 50_000
LONG_NUMBER = "9" * 100_000


@pytest.fixture
def client(fleet: RunningFleet) -> Iterator["redis.Redis"]:
    """Raw access to the fleet's server."""
    with redis.Redis.from_url(fleet.redis_url, socket_timeout=120) as connected:
        yield connected


def message(fleet: RunningFleet) -> tuple[str, dict[str, Any]]:
    """A good one, to be spoilt, and its job's id."""
    job = new_job(GenerationRequest(model=fleet.served, prompt="x", sampling=SamplingOptions(max_tokens=1)))
    return job.job_id, json.loads(task_message(job).at(0.0))


def still_serves(fleet: RunningFleet, pids: list[int]) -> bool:
    """Whether the same process answers the next job."""
    with fleet.producer() as producer:
        job = producer.submit(model=fleet.served, prompt="still there?", sampling={"max_tokens": 2})
        answered = producer.result(job, timeout_seconds=60).usage.completion_tokens > 0
    return answered and pids == [process.pid for process in fleet.worker_processes()]


def failure_of(client: "redis.Redis", producer: Producer, job_id: str) -> InferenceFailed:
    """What the caller of this job gets."""
    eventually(lambda: client.exists(keys.result(job_id)), seconds=90, what="an answer")
    with pytest.raises(InferenceFailed) as failed:
        producer.result(job_id, timeout_seconds=60)
    return failed.value


BODIES = {
    "nested arrays": "[" * DEEP + "]" * DEEP,
    "nested arrays in a request": '[[{"model": "m", "prompt": ' + "[" * DEEP + "]" * DEEP + "}], {}, {}]",
    "nested objects": '[[{"model": "m", "messages": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}], {}, {}]",
    "deep enough to be read": '[[{"model": "m", "prompt": "p", "tools": ' + "[" * 900 + "]" * 900 + "}], {}, {}]",
    "a long integer": f'[[{{"model": "m", "prompt": "p", "sampling": {{"max_tokens": {LONG_NUMBER}}}}}], {{}}, {{}}]',
    "an infinite one": '[[{"model": "m", "prompt": "p", "sampling": {"max_tokens": 1e999}}], {}, {}]',
    "a constant": '[[{"model": "m", "prompt": "p", "sampling": {"temperature": Infinity}}], {}, {}]',
    "an object of kombu's": '[[{"__type__": "datetime", "__value__": "9999-99-99"}], {}, {}]',
    "a thousand arguments": "[" + json.dumps(["x"] * 100_000) + ", {}, {}]",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_hard_to_read_is_answered(
    fleet: RunningFleet, producer: Producer, client: "redis.Redis", body: str
) -> None:
    """Nested without end, with numbers of a hundred thousand digits, with kombu's own types."""
    pids = [process.pid for process in fleet.worker_processes()]
    job_id, spoilt = message(fleet)
    client.lpush(keys.queue(fleet.served), json.dumps(spoilt | {"body": body}))
    assert failure_of(client, producer, job_id).code == "invalid_request"
    assert still_serves(fleet, pids)


HEADERS: dict[str, dict[str, Any]] = {
    "eta": {"eta": "9999-12-31T23:59:59.999999-14:00"},
    "eta of the first year": {"eta": "0001-01-01T00:00:00+14:00"},
    "expires": {"expires": "9999-12-31T23:59:59.999999-14:00"},
    "expires of the first year": {"expires": "0001-01-01T00:00:00+14:00"},
    "expires as a number": {"expires": 1e308},
    "time limits": {"timelimit": [1e308, 1e308]},
    "negative time limits": {"timelimit": [-1, -1e308]},
    "time limits of another kind": {"timelimit": "soon"},
    "retries": {"retries": 10**30},
    "stamps": {"stamped_headers": [["x"]], "stamps": "x"},
    "a group index": {"group_index": 10**30},
    "an argsrepr of another kind": {"argsrepr": {"a": 1}},
    "an enqueueing that never was": {"fleet": {"enqueued_at": 1e308, "submission_token": "t", "schema_version": 1}},
    "a header of ours of another kind": {"fleet": [1]},
    "a schema of the future": {"fleet": {"enqueued_at": 0.0, "submission_token": "t", "schema_version": 10**30}},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_no_header_ends_the_worker(fleet: RunningFleet, client: "redis.Redis", headers: dict[str, Any]) -> None:
    """However the job itself ends, the same process answers the next one."""
    pids = [process.pid for process in fleet.worker_processes()]
    _, spoilt = message(fleet)
    spoilt["headers"] |= headers
    client.lpush(keys.queue(fleet.served), json.dumps(spoilt))
    assert still_serves(fleet, pids)


def test_two_hundred_megabytes_never_reach_the_worker(simulated_fleet: RunningFleet) -> None:
    """The caller is told, the worker's memory is as before, and Redis keeps nothing of it."""
    fleet = simulated_fleet
    [process] = fleet.worker_processes()
    with fleet.producer() as producer, redis.Redis.from_url(fleet.redis_url, socket_timeout=120) as client:
        producer.result(producer.submit(model=fleet.served, prompt="warm"), timeout_seconds=60)
        before = peak_bytes(process.pid)
        job_id, spoilt = message(fleet)
        text = json.dumps(spoilt).replace(json.dumps(spoilt["body"])[1:-1], "x" * 200_000_000)
        client.lpush(keys.queue(fleet.served), text)
        failed = failure_of(client, producer, job_id)
        eventually(lambda: client.info("memory")["used_memory"] < 100_000_000, what="Redis has let go of it")
    assert failed.code == "invalid_request"
    assert "200,00" in failed.message
    assert peak_bytes(process.pid) - before < 50_000_000
    assert still_serves(fleet, [process.pid])


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = (line.split() for line in lines if line.startswith("VmHWM:"))
    return int(peak[1]) * 1024
