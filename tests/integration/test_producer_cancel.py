"""Cancelling on a real Redis: answered at once, told to the workers and to Celery, and never the wrong submission."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery import Celery
from celery.events.state import State
from celery.exceptions import TaskRevokedError

from producer import (
    AsyncProducer,
    CancelOutcome,
    FailureCode,
    FleetUnreachable,
    InferenceFailed,
    JobState,
    NotCancellable,
    Priority,
    Producer,
    ResultExpired,
    Submission,
    keys,
)
from producer.cancellation import NO_WORKER, prepare_cancel
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS
from producer.control_link import ControlLink
from producer.submission import Destination
from tests.finishing import Results, generation_result
from tests.waiting import eventually, free_port
from workers.transport.lease_store import LeasePolicy, LeaseStore, Screening

NAMES = keys.QueueKeys("m")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url, job_record_seconds=100, result_expires_seconds=10) as ours:
        ours.declare_model("m")
        yield ours


def reused(client: redis.Redis, submission: Submission) -> None:
    """Make the job's record a later submission's, as when an id is used again after its record ended."""
    client.hset(keys.job_record(submission.job_id), "token", "a-later-submission")


def test_a_queued_job_is_answered_as_cancelled_with_no_worker_up(producer: Producer) -> None:
    """By its result and by its status."""
    submission = producer.submit(model="m", prompt="x")

    assert producer.cancel(submission.job_id) is CancelOutcome.CANCELLED
    assert producer.status(submission).state is JobState.CANCELLED
    with pytest.raises(InferenceFailed) as caught:
        producer.result(submission, timeout_seconds=0)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.CANCELLED, False)


def test_celery_reads_it_as_a_revoked_task(redis_url: str, producer: Producer) -> None:
    """By its own AsyncResult."""
    submission = producer.submit(model="m", prompt="x")
    producer.cancel(submission)

    with Celery("reader", backend=redis_url, set_as_current=False) as app:
        result = app.AsyncResult(submission.job_id)
        assert result.state == "REVOKED"
        with pytest.raises(TaskRevokedError, match="cancelled"):
            result.get(timeout=30)
        result.forget()
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()


def test_a_waiting_caller_is_told_at_once(client: redis.Redis, producer: Producer) -> None:
    """By publication, as of any result."""
    submission = producer.submit(model="m", prompt="x")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(producer.result, submission, 30)
        eventually(lambda: client.pubsub_numsub(keys.result(submission.job_id))[0][1] == 1, what="the subscription")
        producer.cancel(submission)

        with pytest.raises(InferenceFailed, match="cancelled"):
            waiting.result(30)


def test_what_a_worker_needs_to_know_is_on_file_and_announced(client: redis.Redis, producer: Producer) -> None:
    """The announcement may be lost; what is on file lives as long as a record."""
    submission = producer.submit(model="m", prompt="x")
    with client.pubsub() as listening:  # type: ignore[no-untyped-call]  # the library's hints have a gap
        listening.subscribe(NAMES.cancelled_channel)
        eventually(lambda: client.pubsub_numsub(NAMES.cancelled_channel)[0][1] == 1, what="the subscription")
        producer.cancel(submission)
        announced: list[dict[str, Any]] = []

        def heard() -> bool:
            message = listening.get_message(ignore_subscribe_messages=True)
            announced.extend([json.loads(message["data"])] if message else [])
            return bool(announced)

        eventually(heard, what="the announcement")

    assert announced == [{"job_id": submission.job_id, "submission_token": submission.submission_token}]
    assert client.hgetall(NAMES.cancels) == {submission.job_id: submission.submission_token}
    assert 10 < client.ttl(NAMES.cancels) <= 100
    for name in (keys.job_record(submission.job_id), keys.result(submission.job_id)):
        assert 0 < client.ttl(name) <= 10


def test_a_worker_that_claims_the_job_later_does_not_run_it(redis_url: str, producer: Producer) -> None:
    """And one that has it already finds its token on file."""
    submission = producer.submit(model="m", prompt="x")
    producer.cancel(submission)

    with redis.Redis.from_url(redis_url) as binary:
        store = LeaseStore(binary, "m", LeasePolicy(), consumer="c-", worker="w@h")
        [(screening, _)] = store.screen([submission.job_id])
        assert screening is not Screening.RUN
        assert store.cancelled_tokens([submission.job_id]) == [submission.submission_token]


def test_a_second_cancel_shortens_nothing_that_the_first_left(client: redis.Redis, redis_url: str) -> None:
    """The hash is shared: a producer with shorter records must not make it forget what another cancelled."""
    with Producer(redis_url, job_record_seconds=100) as first, Producer(redis_url, job_record_seconds=5) as second:
        first.declare_model("m")
        for producer in (first, second):
            producer.cancel(producer.submit(model="m", prompt="x"))

    assert client.hlen(NAMES.cancels) == 2
    assert client.ttl(NAMES.cancels) > 5


def test_an_answer_may_be_kept_for_ever(redis_url: str, client: redis.Redis) -> None:
    """As with Celery's ``result_expires`` of 0; the record keeps its own lifetime then."""
    with Producer(redis_url, job_record_seconds=100, result_expires_seconds=0) as producer:
        producer.declare_model("m")
        submission = producer.submit(model="m", prompt="x")
        producer.cancel(submission)

    assert client.ttl(keys.result(submission.job_id)) == -1
    assert 0 < client.ttl(keys.job_record(submission.job_id)) <= 100


def test_cancelling_again_says_so_and_changes_nothing(client: redis.Redis, producer: Producer) -> None:
    """Also when a worker has dealt with the first one."""
    submission = producer.submit(model="m", prompt="x")
    producer.cancel(submission)
    first = client.get(keys.result(submission.job_id))
    client.delete(NAMES.cancels)

    assert producer.cancel(submission) is CancelOutcome.ALREADY_CANCELLED
    assert client.get(keys.result(submission.job_id)) == first
    assert not client.exists(NAMES.cancels)


def test_what_has_ended_stays_as_it_is(client: redis.Redis, producer: Producer, results: Results) -> None:
    """Answered or failed."""
    answered, failed = (producer.submit(model="m", prompt="x") for _ in range(2))
    results.succeed(answered.job_id)
    results.fail(failed.job_id, InferenceFailed("poisoned", "it kills engines"))

    assert [producer.cancel(job) for job in (answered, failed)] == [CancelOutcome.ENDED] * 2
    assert producer.result(answered) == generation_result(answered.job_id)
    with pytest.raises(InferenceFailed, match="poisoned"):
        producer.result(failed)
    assert not client.exists(NAMES.cancels)


@pytest.mark.parametrize("state", ["STARTED", "RETRY"])
def test_a_job_that_runs_or_waits_for_a_retry_is_cancelled(producer: Producer, results: Results, state: str) -> None:
    """Celery's states that are not final."""
    submission = producer.submit(model="m", prompt="x")
    results.store(submission.job_id, {}, state)

    assert producer.cancel(submission) is CancelOutcome.CANCELLED
    assert producer.status(submission).state is JobState.CANCELLED


def test_a_cancel_of_one_submission_never_touches_a_later_one_with_its_id(
    client: redis.Redis, producer: Producer
) -> None:
    """A client cancelled its old job and killed the new one that had been given the same id."""
    old = producer.submit(model="m", prompt="x")
    reused(client, old)

    with pytest.raises(ResultExpired, match="a later one has its id"):
        producer.cancel(old)
    assert producer.status(old).state is JobState.QUEUED
    assert not client.exists(NAMES.cancels, keys.result(old.job_id))


def test_a_duplicate_cancels_the_job_that_it_names(producer: Producer) -> None:
    """It is that job's submission as much as the first was."""
    first, again = (producer.submit(model="m", prompt="x", idempotency_key="k") for _ in range(2))

    assert again.submission_token == first.submission_token
    assert producer.cancel(again) is CancelOutcome.CANCELLED
    assert producer.cancel(first) is CancelOutcome.ALREADY_CANCELLED


def test_a_cancel_whose_answer_was_lost_may_be_sent_again(redis_url: str, producer: Producer) -> None:
    """The second answer is the first one's."""
    run = prepare_cancel(producer.submit(model="m", prompt="x"), Destination(database=0))
    link = ControlLink(
        redis_url, connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS, socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS
    )

    assert [link.cancel(run), link.cancel(run)] == [[b"cancelled"], [b"cancelled"]]
    link.close()


def test_a_job_that_nobody_knows_is_an_error(producer: Producer) -> None:
    """With what to do if Celery knows it."""
    with pytest.raises(ResultExpired, match=r"no-such-job.*control\.revoke"):
        producer.cancel("no-such-job")


def test_a_job_that_a_canvas_sent_is_left_to_celery(client: redis.Redis, producer: Producer, results: Results) -> None:
    """It has no submission; what a worker noted of it, or a state that is not final, is no reason to touch it."""
    client.hset(keys.job_record("noted"), mapping={"state": "running", "worker": "w@h"})
    results.store("started", {}, "STARTED")

    for job_id in ("noted", "started"):
        with pytest.raises(NotCancellable, match=f"{job_id}.*control.revoke"):
            producer.cancel(job_id)
    assert not client.exists(NAMES.cancels)


@pytest.mark.parametrize(("worker", "shown"), [(None, NO_WORKER), ('w"ö@host', 'w"ö@host')])
def test_celerys_own_event_receiver_and_state_see_the_job_as_revoked(
    redis_url: str, client: redis.Redis, producer: Producer, worker: str | None, shown: str
) -> None:
    """As Flower does: at its worker, or at the one name that stands for none."""
    state = State()
    submission = producer.submit(model="m", prompt="x")
    if worker is not None:
        client.hset(keys.job_record(submission.job_id), "worker", worker)

    def on_event(event: dict[str, Any]) -> None:
        state.event(event)
        receiver.should_stop = True

    with (
        Celery("monitor", broker=redis_url, set_as_current=False) as monitor,
        monitor.connection_for_read() as connection,
    ):
        receiver = monitor.events.Receiver(connection, handlers={"*": on_event})
        listener = threading.Thread(target=lambda: receiver.capture(timeout=20, wakeup=False))
        listener.start()
        eventually(lambda: client.pubsub_numpat() > 0, what="the receiver's subscription")
        before = client.time()[0]
        producer.cancel(submission)
        listener.join()

    task = state.tasks[submission.job_id]
    assert (task.state, task.worker.hostname) == ("REVOKED", shown)
    assert before <= task.revoked <= before + 60


def test_a_server_that_forgot_the_script_is_given_it_again(client: redis.Redis, producer: Producer) -> None:
    """As after a restart or a fail-over."""
    for _ in range(2):
        assert producer.cancel(producer.submit(model="m", prompt="x")) is CancelOutcome.CANCELLED
        client.script_flush()


def test_a_foreign_key_in_the_way_leaves_nothing_half_cancelled(client: redis.Redis, producer: Producer) -> None:
    """The job goes on."""
    submission = producer.submit(model="m", prompt="x")
    client.set(NAMES.cancels, "not a hash")

    with pytest.raises(FleetUnreachable, match="WRONGTYPE"):
        producer.cancel(submission)
    assert producer.status(submission).state is JobState.QUEUED
    assert not client.exists(keys.result(submission.job_id))


def test_without_a_server_a_cancel_says_so() -> None:
    """With the address."""
    port = free_port()
    with (
        Producer(f"redis://127.0.0.1:{port}/0") as producer,
        pytest.raises(FleetUnreachable, match=f"127.0.0.1:{port}"),
    ):
        producer.cancel("j")


async def test_the_asyncio_producer_cancels_with_the_same_meaning(redis_url: str, client: redis.Redis) -> None:
    """Now, before, too late for it, and not at all."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        submission = await producer.submit(model="m", prompt="x", priority=Priority.BATCH)
        client.script_flush()

        assert await producer.cancel(submission) is CancelOutcome.CANCELLED
        assert await producer.cancel(submission.job_id) is CancelOutcome.ALREADY_CANCELLED
        with pytest.raises(InferenceFailed, match="cancelled"):
            await producer.result(submission)
        with pytest.raises(ResultExpired):
            await producer.cancel("no-such-job")
