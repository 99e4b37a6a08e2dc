"""Each button of Flower, at a real worker: it works, or says why not; none hurts."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import InferenceFailed, Producer, ResultNotReady
from tests.flowers import RunningFlower, running_flower
from tests.running import RunningFleet, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

GENERATE = "fleet.generate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all that runs here."""
    return tmp_path_factory.mktemp("controls")


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[RunningFleet]:
    """One worker, on a server of its own."""
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        simulated(server.url, folder, seconds_per_token=0.01) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def flower(fleet: RunningFleet, folder: Path) -> Iterator[RunningFlower]:
    """That knows it."""
    with running_flower(fleet.redis_url, folder) as started:
        yield started


@pytest.fixture
def producer(fleet: RunningFleet) -> Iterator[Producer]:
    """For that worker."""
    with fleet.producer() as opened:
        yield opened


def press(flower: RunningFlower, action: str, **form: object) -> tuple[int, str]:
    """What a worker's button answers."""
    status, text = flower.ask(f"/api/worker/{action}/{next(iter(flower.workers()))}", form)
    return status, json.loads(text)["message"] if status == 200 else text


def limit(flower: RunningFlower, kind: str, **form: object) -> tuple[int, str]:
    """What the button of a task's limit answers."""
    return flower.ask(f"/api/task/{kind}/{GENERATE}", {"workername": next(iter(flower.workers())), **form})


def test_what_an_engine_cannot_do_is_refused(flower: RunningFlower, fleet: RunningFleet, producer: Producer) -> None:
    """With what to do instead; the worker is the same afterwards, and serves."""
    [before] = [process.pid for process in fleet.worker_processes()]
    producer.declare_model("other")
    for action, form, reason in (
        ("pool/grow", {"n": 2}, "engine.options.max_num_seqs"),
        ("pool/shrink", {"n": 1}, "engine.options.max_num_seqs"),
        ("pool/autoscale", {"min": 1, "max": 3}, "engine.options.max_num_seqs"),
        ("pool/restart", {}, "Shut Down"),
        ("queue/add-consumer", {"queue": "fleet.other"}, "start a worker with that model"),
    ):
        status, text = press(flower, action, **form)
        assert (status, reason in text) == (403, True), (action, text)
    for path, reason in (
        ("apply", "fleet submit"),
        ("async-apply", "fleet submit"),
        ("send-task", "fleet submit"),
        ("abort", "revoke"),
        ("result", "fleet result"),
    ):
        status, text = flower.ask(f"/api/task/{path}/{GENERATE}", {})
        assert (status, reason in text) == (403, True), (path, text)
    job = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 3})
    assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 3
    assert [process.pid for process in fleet.worker_processes()] == [before]
    assert "Traceback" not in fleet.log.read_text()


def test_limits_are_set_and_taken_away(flower: RunningFlower, producer: Producer) -> None:
    """Of jobs that start afterwards."""
    long = {"max_tokens": 300, "ignore_eos": True}
    assert limit(flower, "timeout", soft=0.3, hard=5)[0] == 200
    stopped = producer.submit(model="sim", prompt="x", sampling=long)
    with pytest.raises(InferenceFailed, match="time limit"):
        producer.result(stopped, timeout_seconds=60)
    assert limit(flower, "timeout")[0] == 200
    ended = producer.submit(model="sim", prompt="x", sampling=long)
    assert producer.result(ended, timeout_seconds=60).usage.completion_tokens == 300
    assert limit(flower, "rate-limit", ratelimit="2/s")[0] == 200
    started_at = time.monotonic()
    jobs = [producer.submit(model="sim", prompt="x", sampling={"max_tokens": 1}) for _ in range(5)]
    for job in jobs:
        producer.result(job, timeout_seconds=60)
    assert time.monotonic() - started_at > 1.5
    status, text = limit(flower, "rate-limit", ratelimit="many")
    assert (status, "Invalid rate limit" in text) == (403, True)
    assert limit(flower, "rate-limit", ratelimit="0")[0] == 200


def test_a_queue_is_paused_and_taken_up_again(flower: RunningFlower, fleet: RunningFleet, producer: Producer) -> None:
    """Cancel Consumer; what comes then waits in the queue until Add Consumer."""
    assert press(flower, "queue/cancel-consumer", queue="fleet.sim") == (200, "no longer consuming from fleet.sim")
    eventually(lambda: "Canceling queue fleet.sim" in fleet.log.read_text(), what="it is paused")
    job = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 3})
    with pytest.raises(ResultNotReady):
        producer.result(job, timeout_seconds=1)
    assert press(flower, "queue/add-consumer", queue="fleet.sim") == (200, "add consumer fleet.sim")
    assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 3


def test_jobs_are_revoked(flower: RunningFlower, fleet: RunningFleet, producer: Producer) -> None:
    """A running one with ``terminate``; its slot is free at once."""
    job = producer.submit(model="sim", prompt="x", metadata={"simulate": "slow:600"})
    eventually(lambda: flower.state(job.job_id) == "STARTED", what="it runs")
    assert flower.ask(f"/api/task/revoke/{job.job_id}", {"terminate": "true"})[0] == 200
    with pytest.raises(InferenceFailed, match="cancelled"):
        producer.result(job, timeout_seconds=60)
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")
    eventually(lambda: flower.state(job.job_id) == "REVOKED", what="Flower knows")


def test_a_worker_that_is_shut_down_ends_its_jobs_and_comes_back(
    flower: RunningFlower, fleet: RunningFleet, producer: Producer
) -> None:
    """Its supervisor starts another."""
    [before] = [process.pid for process in fleet.worker_processes()]
    job = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 150, "ignore_eos": True})
    eventually(lambda: flower.state(job.job_id) == "STARTED", what="it runs")
    assert press(flower, "shutdown") == (200, "Shutting down!")
    assert producer.result(job, timeout_seconds=60).attempt == 1
    after = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 3})
    assert producer.result(after, timeout_seconds=60).usage.completion_tokens == 3
    assert [process.pid for process in fleet.worker_processes()] != [before]
