"""Bugs that somebody had with a queue of jobs, each on a running worker; test_lease_stories.py has the store's own."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery.exceptions import TaskRevokedError

from producer import InferenceFailed, Producer
from producer.contract import FailureCode
from producer.jobs import CancelOutcome
from producer.keys import QueueKeys, lane_of_step, queue
from tests.faults.test_leases_on_workers import LONG, fleet_at, nothing_is_left, submitted
from tests.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """The server that the fleet uses."""
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def test_a_late_result_is_not_delivered_to_another_caller(
    redis_url: str, client: "redis.Redis", tmp_path: Path
) -> None:
    """Results were matched by position in a batch: after one job timed out, each later caller got its neighbour's.

    Here each result goes out under its own job's id: of jobs that end in any order, and with some cancelled between,
    everybody gets an answer about their own request.
    """
    with fleet_at(redis_url, tmp_path, seconds_per_token=0.005) as fleet, Producer(redis_url) as producer:
        jobs = {
            number: producer.submit(
                model="sim",
                prompt=f"job {number}",
                sampling=LONG | {"max_tokens": 10 + 7 * (number % 9)},
                metadata={"number": str(number)},
            )
            for number in range(60)
        }
        # One that has ended by then keeps its answer.
        outcomes = {number: producer.cancel(job) for number, job in jobs.items() if number % 10 == 3}
        cancelled = {number for number, outcome in outcomes.items() if outcome is CancelOutcome.CANCELLED}
        assert cancelled
        for number, job in jobs.items():
            if number in cancelled:
                with pytest.raises(InferenceFailed, match="cancelled"):
                    producer.result(job, timeout_seconds=60)
                continue
            answered = producer.result(job, timeout_seconds=60)
            assert answered.id == job.job_id
            assert answered.metadata == {"number": str(number)}
            assert answered.usage.completion_tokens == 10 + 7 * (number % 9)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="nothing runs")
        eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_a_job_that_expired_in_the_queue_is_answered(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """A job expired at dequeue with no result: it was dropped there, and its caller waited for ever."""
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
        deadline = datetime.now(UTC) + timedelta(seconds=0.5)
        job = producer.submit(model="sim", prompt="late", deadline=deadline)
        eventually(lambda: datetime.now(UTC) > deadline, what="the deadline passed")
        with fleet_at(redis_url, tmp_path) as fleet:
            with pytest.raises(InferenceFailed) as failed:
                producer.result(job, timeout_seconds=60)
            assert failed.value.code is FailureCode.EXPIRED
            with fleet.celery() as app:
                past = datetime.now(UTC) - timedelta(seconds=5)
                request = {"model": "sim", "prompt": "from a stock sender"}
                sent = app.send_task("fleet.generate", args=[request], queue=queue("sim"), expires=past)
                with pytest.raises(TaskRevokedError, match="expired"):
                    sent.get(timeout=30)
            eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_a_refused_request_has_a_result(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """A validation error acknowledged without a result: the message was gone, and its caller waited for ever."""
    with fleet_at(redis_url, tmp_path) as fleet, fleet.celery() as app:
        wrong = {"model": "sim", "prompt": "x", "sampling": {"max_tokens": -1}}
        sent = app.send_task("fleet.generate", args=[wrong], queue=queue("sim"))
        with pytest.raises(Exception, match=r"invalid_request.*sampling\.max_tokens"):
            sent.get(timeout=30)
        eventually(lambda: nothing_is_left(client), what="nothing is left")


def test_a_job_that_nobody_waits_for_is_run_once(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """Without a result there was nothing to acknowledge with: such a job came back after its worker had stopped."""
    with fleet_at(redis_url, tmp_path, worker__concurrency=1) as fleet, fleet.celery() as app:
        request = {"model": "sim", "prompt": "x", "sampling": LONG}
        app.send_task("fleet.generate", args=[request], queue=queue("sim"), ignore_result=True)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 1, what="it runs")
        assert fleet.stop() == 0
    assert nothing_is_left(client)
    assert "go back to the queue" not in fleet.log.read_text()


def test_an_engine_never_sees_one_request_id_twice(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """An engine request id reused on redelivery: the engine refused it, or mixed two attempts of one job.

    The same message three times in the queue, as a redelivery and a duplicate would have it: the attempts run beside
    each other (two ids in the engine), and the job has one result.
    """
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
        job = submitted(producer, 1)[0]
        message = client.lindex(lane_of_step("sim", 3), 0)
        assert message is not None
        client.lpush(lane_of_step("sim", 3), message, message)
        with fleet_at(redis_url, tmp_path) as fleet:
            eventually(lambda: fleet.metric("fleet_active_jobs") == 3, what="three attempts run")
            assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 200
            eventually(lambda: nothing_is_left(client), what="nothing is left")
            assert fleet.metric("fleet_requests_total", status="succeeded") == 3
            assert "Traceback" not in fleet.log.read_text()


def test_a_worker_never_holds_more_than_its_slots(redis_url: str, client: "redis.Redis", tmp_path: Path) -> None:
    """A counter with a blind expiry over-admitting: jobs that ran longer than the counter lived were forgotten by it.

    Here slots are counted from what the worker holds, for as long as it does: jobs of five leases' length.
    """
    with fleet_at(redis_url, tmp_path, seconds_per_token=0.025, worker__concurrency=2) as fleet:
        with Producer(redis_url) as producer:
            jobs = submitted(producer, 6)
            most = 0
            while any(producer.status(job).state.value != "succeeded" for job in jobs):
                most = max(most, client.zcard(QueueKeys("sim").leases))
        assert most == 2
        assert fleet.metric("fleet_requests_total", status="succeeded") == 6
