"""Waiting for results that Celery's own backend stores: published, missed, failed, late and lost."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from producer import (
    FailureCode,
    FleetUnreachable,
    InferenceFailed,
    JobState,
    Producer,
    ResultExpired,
    ResultNotReady,
    keys,
)
from tests.finishing import Results, celery_results, generation_result
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

# Celery's backend calls a command of redis-py that redis-py has deprecated.


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def listeners(redis_url: str, job_id: str) -> int:
    """How many connections listen for this result."""
    with redis.Redis.from_url(redis_url) as client:
        [(_, count)] = client.pubsub_numsub(keys.result(job_id))
    return int(count)


def test_a_result_that_is_there_is_returned_at_once(producer: Producer, results: Results) -> None:
    """By submission, by id, and with a timeout of zero."""
    submission = producer.submit(model="m", prompt="x")
    results.succeed(submission.job_id, text="done")

    expected = generation_result(submission.job_id, "done")
    assert producer.result(submission) == producer.result(submission.job_id, timeout_seconds=0) == expected


def test_a_waiting_caller_is_told_by_publication(redis_url: str, producer: Producer, results: Results) -> None:
    """Celery publishes each result on the channel of its key."""
    submission = producer.submit(model="m", prompt="x")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(producer.result, submission, 30)
        eventually(lambda: listeners(redis_url, submission.job_id) == 1, what="the subscription")
        results.succeed(submission.job_id)

        assert waiting.result(30) == generation_result(submission.job_id)
    eventually(lambda: listeners(redis_url, submission.job_id) == 0, what="the end of the subscription")


def test_a_result_whose_publication_was_missed_is_found_all_the_same(redis_url: str, producer: Producer) -> None:
    """Written without being published, as a lost message would look."""
    submission = producer.submit(model="m", prompt="x")
    with ThreadPoolExecutor(1) as pool, redis.Redis.from_url(redis_url) as client:
        waiting = pool.submit(producer.result, submission, 30)
        eventually(lambda: listeners(redis_url, submission.job_id) == 1, what="the subscription")
        text = generation_result(submission.job_id).model_dump_json()
        client.set(keys.result(submission.job_id), f'{{"status": "SUCCESS", "result": {text}}}')

        assert waiting.result(30).id == submission.job_id


def test_a_failed_job_raises_its_code(producer: Producer, results: Results) -> None:
    """As the worker raised it, with whether a retry can help."""
    submission = producer.submit(model="m", prompt="x")
    results.fail(submission.job_id, InferenceFailed("engine_failed", "the engine died"))

    with pytest.raises(InferenceFailed, match="the engine died") as caught:
        producer.result(submission)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.ENGINE_FAILED, True)


@pytest.mark.parametrize("timeout_seconds", [0, 0.05])
def test_a_job_that_is_on_its_way_when_the_timeout_runs_out_is_not_ready(
    producer: Producer, results: Results, timeout_seconds: float
) -> None:
    """Queued, started and retried alike."""
    submission = producer.submit(model="m", prompt="x")
    for state in (None, "STARTED", "RETRY"):
        if state is not None:
            results.store(submission.job_id, {}, state)
        with pytest.raises(ResultNotReady, match=submission.job_id):
            producer.result(submission, timeout_seconds=timeout_seconds)


def test_a_job_that_nobody_knows_is_not_waited_for(producer: Producer) -> None:
    """A wrong id is an error, even without a timeout."""
    with pytest.raises(ResultExpired, match="no-such-job"):
        producer.result("no-such-job")
    with pytest.raises(ResultExpired, match="no-such-job"):
        producer.status("no-such-job")


def test_a_server_that_restarts_while_a_caller_waits_does_not_lose_the_caller(tmp_path: Path) -> None:
    """The wait goes on where it was."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server, Producer(server.url) as producer, ThreadPoolExecutor(1) as pool:
        producer.declare_model("m")
        submission = producer.submit(model="m", prompt="x")
        waiting = pool.submit(producer.result, submission, 60)
        eventually(lambda: listeners(server.url, submission.job_id) == 1, what="the subscription")
        server.kill()
        server.start()
        with celery_results(server.url) as results:
            results.succeed(submission.job_id)

            assert waiting.result(60).id == submission.job_id


def test_a_server_that_stays_away_is_named_when_the_timeout_runs_out(tmp_path: Path) -> None:
    """Not "not ready": nobody knows that."""
    server = EmbeddedServer(tmp_path, free_port())
    with server, Producer(server.url) as producer:
        producer.declare_model("m")
        submission = producer.submit(model="m", prompt="x")
        server.kill()

        with pytest.raises(FleetUnreachable, match=r"127\.0\.0\.1"):
            producer.result(submission, timeout_seconds=0.3)


def test_a_status_follows_the_job_from_the_queue_to_its_end(
    redis_url: str, producer: Producer, results: Results
) -> None:
    """Queued, running on a worker, succeeded."""
    submission = producer.submit(model="m", prompt="x")
    queued = producer.status(submission)
    with redis.Redis.from_url(redis_url) as client:
        fields = {"state": "running", "worker": "fleet@a", "started_at": "12.5"}
        client.hset(keys.job_record(submission.job_id), mapping=fields)
    running = producer.status(submission.job_id)
    results.succeed(submission.job_id)
    succeeded = producer.status(submission)

    assert (queued.state, queued.model, queued.worker) == (JobState.QUEUED, "m", None)
    assert queued.enqueued_at == submission.enqueued_at
    assert (running.state, running.worker, running.started_at) == (JobState.RUNNING, "fleet@a", 12.5)
    assert (succeeded.state, succeeded.worker, succeeded.failure) == (JobState.SUCCEEDED, "fleet@test", None)


def test_many_threads_wait_for_one_job(producer: Producer, results: Results) -> None:
    """Each gets the result."""
    submission = producer.submit(model="m", prompt="x")
    ready = threading.Barrier(9)

    def wait() -> str:
        ready.wait()
        return producer.result(submission, timeout_seconds=60).id

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(wait) for _ in range(8)]
        ready.wait()
        results.succeed(submission.job_id)

        assert {future.result(30) for future in waiting} == {submission.job_id}
