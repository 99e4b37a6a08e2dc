"""The same idempotency key names the same job, in flight or done, for as long as that job is known."""

from collections.abc import Iterator

import pytest
import redis

from producer import InferenceFailed, InvalidRequest, JobState, Producer, Submission, keys
from tests.finishing import Results, generation_result
from tests.waiting import eventually


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def submit(producer: Producer, prompt: str = "x", tenant: str | None = "t") -> Submission:
    """One request, always under the same key."""
    return producer.submit(model="m", prompt=prompt, tenant=tenant, idempotency_key="k")


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.RETRYING])
def test_while_the_job_is_in_flight_its_key_names_it(client: redis.Redis, producer: Producer, state: JobState) -> None:
    """Wherever it is."""
    first = submit(producer)
    client.hset(keys.job_record(first.job_id), "state", state.value)

    again = submit(producer)

    assert (again.job_id, again.enqueued_at, again.duplicate) == (first.job_id, first.enqueued_at, True)
    assert again.submission_token == first.submission_token != ""


def test_when_the_job_is_done_its_key_names_it_and_its_answer(producer: Producer, results: Results) -> None:
    """The answer is there at once."""
    first = submit(producer)
    results.succeed(first.job_id)

    again = submit(producer)

    assert again.duplicate
    assert producer.result(again, timeout_seconds=0) == generation_result(first.job_id)


def test_when_the_job_failed_or_was_cancelled_its_key_still_names_it(producer: Producer, results: Results) -> None:
    """However it ended: a new try takes a new key."""
    failed = submit(producer, tenant="a")
    results.fail(failed.job_id, InferenceFailed("engine_failed", "it broke"))
    cancelled = submit(producer, tenant="b")
    producer.cancel(cancelled)

    assert submit(producer, tenant="a").job_id == failed.job_id
    assert submit(producer, tenant="b").job_id == cancelled.job_id


def test_another_tenants_same_key_names_another_job(producer: Producer) -> None:
    """No tenant is a tenant of its own."""
    submissions = [submit(producer, tenant=tenant) for tenant in ("a", "b", None)]

    assert len({submission.job_id for submission in submissions}) == 3
    assert not any(submission.duplicate for submission in submissions)


def test_another_body_under_a_known_key_is_refused_in_flight_and_done(producer: Producer, results: Results) -> None:
    """It names the job that has the key."""
    first = submit(producer)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=f"'k' names job {first.job_id}"):
            submit(producer, prompt="y")
        results.succeed(first.job_id)


def test_a_key_lives_as_long_as_its_jobs_record(redis_url: str, client: redis.Redis) -> None:
    """Then the same request is a new job."""
    with Producer(redis_url, job_record_seconds=1) as producer:
        producer.declare_model("m")
        first = submit(producer)
        eventually(lambda: not client.exists(keys.job_record(first.job_id)), what="the end of the record")

        again = submit(producer)

    assert not again.duplicate
    assert again.job_id != first.job_id


def test_a_key_is_free_when_the_result_of_its_job_has_expired(client: redis.Redis, producer: Producer) -> None:
    """A record ends with its result, days before its key would: no caller is to be sent to a job that nobody knows."""
    first = submit(producer)
    client.delete(keys.job_record(first.job_id))

    other_body = submit(producer, prompt="y")
    again = submit(producer, prompt="y")

    assert not other_body.duplicate
    assert (again.job_id, again.duplicate) == (other_body.job_id, True)
    assert client.ttl(keys.idempotency("t", "k")) > 0
