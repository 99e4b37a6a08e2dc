"""Submitting on a real Redis: all of a job or nothing, once, and a clear error when Redis is not there."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.connection import Connection

from producer import InvalidRequest, Priority, Producer, RedisFull, SubmitFailed, UnknownModel, keys
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS
from producer.contract import GenerationRequest, SystemFields
from producer.errors import FleetUnreachable
from producer.link import Link
from producer.submission import Destination, enqueue_run, prepare, read_reply
from tests.queued import queued
from tests.waiting import free_port
from workers.embedded import EmbeddedServer

LANE = keys.lane("m", Priority.NORMAL)


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


def test_a_submitted_job_is_what_a_celery_consumer_receives(redis_url: str, producer: Producer) -> None:
    """Kombu's own consumer decodes it, from the queue that Celery would read."""
    submission = producer.submit(model="m", prompt="hello", priority="interactive")

    connection: Any = Connection(redis_url)  # type: ignore[no-untyped-call]
    with connection, connection.SimpleQueue("fleet.m") as queue:
        message = queue.get(timeout=5)
        message.ack()

    assert message.headers["task"] == "fleet.generate"
    assert message.headers["id"] == submission.job_id
    [[request], _, _] = message.payload
    assert GenerationRequest.model_validate(request) == GenerationRequest(
        model="m", prompt="hello", priority=Priority.INTERACTIVE
    )
    fleet = SystemFields.model_validate(message.headers["fleet"])
    assert fleet.enqueued_at == submission.enqueued_at


def test_the_message_has_the_same_parts_as_one_that_celery_sends(
    redis_url: str, client: redis.Redis, producer: Producer
) -> None:
    """Byte for byte they differ; part by part they do not, but for the plain body and the ``fleet`` header."""
    producer.submit(model="m", prompt="x")
    with Celery("stock", broker=redis_url, set_as_current=False) as stock:
        stock.send_task("fleet.generate", args=[{}], queue="fleet.m", priority=3)

    ours, theirs = queued(client)

    assert ours.keys() == theirs.keys()
    assert ours["headers"].keys() - theirs["headers"].keys() == {"fleet"}
    assert theirs["headers"].keys() <= ours["headers"].keys()
    assert theirs["properties"].keys() - ours["properties"].keys() == {"body_encoding"}
    for part in ("delivery_mode", "delivery_info", "priority"):
        assert ours["properties"][part] == theirs["properties"][part]


@pytest.mark.parametrize("priority", list(Priority))
def test_each_priority_waits_in_its_own_lane(client: redis.Redis, producer: Producer, priority: Priority) -> None:
    """And nowhere else."""
    submission = producer.submit(model="m", prompt="x", priority=priority)

    lengths = {lane: client.llen(keys.lane("m", lane)) for lane in Priority}
    assert lengths == {lane: int(lane is priority) for lane in Priority}
    assert queued(client, priority=priority)[0]["headers"]["id"] == submission.job_id


def test_a_record_of_the_job_lives_for_its_lifetime(redis_url: str, client: redis.Redis) -> None:
    """With what a status needs before any worker has seen the job."""
    with Producer(redis_url, job_record_seconds=100) as producer:
        producer.declare_model("m")
        submission = producer.submit(model="m", prompt="x", tenant="t")

    record = client.hgetall(keys.job_record(submission.job_id))
    assert record.keys() == {"token", "model", "tenant", "priority", "enqueued_at"}
    assert (record["model"], record["tenant"], record["priority"]) == ("m", "t", "normal")
    assert float(record["enqueued_at"]) == submission.enqueued_at
    assert 0 < client.ttl(keys.job_record(submission.job_id)) <= 100


def test_the_time_of_enqueueing_is_the_servers(client: redis.Redis, producer: Producer) -> None:
    """Between two of the server's own answers."""
    before = client.time()
    submission = producer.submit(model="m", prompt="x")
    after = client.time()

    assert before[0] + before[1] / 1e6 <= submission.enqueued_at <= after[0] + after[1] / 1e6


def test_a_job_for_an_unknown_model_is_refused_with_the_known_names(client: redis.Redis, producer: Producer) -> None:
    """And leaves no trace."""
    with pytest.raises(UnknownModel) as caught:
        producer.submit(model="typo", prompt="x", idempotency_key="k")

    assert (caught.value.model, caught.value.known) == ("typo", ("m",))
    assert client.keys("*") == [keys.MODELS]


@pytest.mark.parametrize("fields", [{"model": "m"}, {"model": "m", "prompt": "x", "temperature": 1}, {}])
def test_a_request_that_breaks_the_contract_never_reaches_redis(
    client: redis.Redis, producer: Producer, fields: dict[str, Any]
) -> None:
    """Only contract fields are taken by keyword; nothing is lifted into sampling."""
    with pytest.raises(InvalidRequest):
        producer.submit(**fields)

    assert client.keys("*") == [keys.MODELS]


def test_the_same_idempotency_key_names_the_same_job(client: redis.Redis, producer: Producer) -> None:
    """However often it is submitted."""
    first = producer.submit(model="m", prompt="x", idempotency_key="k", tenant="t")
    again = producer.submit(model="m", prompt="x", idempotency_key="k", tenant="t")

    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.job_id, again.enqueued_at) == (first.job_id, first.enqueued_at)
    assert len(queued(client)) == 1


def test_an_idempotency_key_with_another_body_is_refused(client: redis.Redis, producer: Producer) -> None:
    """It is a mistake of the caller, and nothing is queued."""
    first = producer.submit(model="m", prompt="x", idempotency_key="k")

    with pytest.raises(InvalidRequest, match=f"'k' names job {first.job_id}"):
        producer.submit(model="m", prompt="y", idempotency_key="k")
    assert len(queued(client)) == 1


def test_tenants_do_not_share_idempotency_keys(producer: Producer) -> None:
    """Each has its own."""
    ids = {producer.submit(model="m", prompt="x", idempotency_key="k", tenant=t).job_id for t in ("a", "b", None)}

    assert len(ids) == 3


def test_a_job_that_is_sent_twice_is_queued_once(redis_url: str, client: redis.Redis, producer: Producer) -> None:
    """So that a submission whose answer was lost may be sent again: the second answer is the first one's."""
    job = prepare(GenerationRequest(model="m", prompt="x"))
    run = enqueue_run([job], Destination(database=0))
    link = Link(
        redis_url, connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS, socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS
    )

    first = link.enqueue(run)
    producer.forget_model("m")
    second = link.enqueue(run)
    link.close()

    assert read_reply(job, first) == read_reply(job, second)
    assert not read_reply(job, second).duplicate
    assert len(queued(client)) == 1


def test_a_server_that_forgot_the_script_is_given_it_again(client: redis.Redis, producer: Producer) -> None:
    """As after a restart or a fail-over."""
    producer.submit(model="m", prompt="x")
    client.script_flush()
    producer.submit(model="m", prompt="x")

    assert len(queued(client)) == 2


def test_a_foreign_key_in_the_place_of_a_lane_leaves_nothing_half_queued(
    client: redis.Redis, producer: Producer
) -> None:
    """Not even a record."""
    client.set(LANE, "not a list")

    with pytest.raises(SubmitFailed, match="WRONGTYPE"):
        producer.submit(model="m", prompt="x", idempotency_key="k")
    assert set(client.keys("*")) - {keys.MEMORY} == {LANE, keys.MODELS}


def test_a_full_redis_refuses_the_job_whole(client: redis.Redis, producer: Producer) -> None:
    """Nothing is half-queued, and the error says what happened and when to try again."""
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisFull, match=r"no memory for more jobs \(.* MiB in use.*submit again in about 5 s"):
            producer.submit(model="m", prompt="x", idempotency_key="k")
    finally:
        client.config_set("maxmemory", 0)
    assert client.keys("*") == [keys.MODELS]


def test_a_read_only_redis_refuses_the_job(client: redis.Redis, producer: Producer) -> None:
    """As a replica does after a fail-over."""
    client.replicaof("127.0.0.1", str(free_port()))
    try:
        with pytest.raises(SubmitFailed, match=r"(?i)read only replica"):
            producer.submit(model="m", prompt="x")
    finally:
        client.replicaof("NO", "ONE")
    assert queued(client) == []


def test_without_a_server_every_call_says_so_at_once() -> None:
    """A refused connection is an error of ours, with the address."""
    port = free_port()
    with Producer(f"redis://127.0.0.1:{port}/0") as producer:
        with pytest.raises(SubmitFailed, match=f"127.0.0.1:{port}"):
            producer.submit(model="m", prompt="x")
        for ask in (producer.models, lambda: producer.status("j"), lambda: producer.result("j", timeout_seconds=0)):
            with pytest.raises(FleetUnreachable, match=f"127.0.0.1:{port}"):
                ask()


def test_a_server_that_never_answers_is_an_error_after_the_socket_timeout() -> None:
    """A half-open connection does not hang a web app."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with Producer(url, socket_timeout_seconds=0.1) as producer, pytest.raises(SubmitFailed, match=r"(?i)timeout"):
            producer.submit(model="m", prompt="x")


def test_a_server_that_restarted_behind_a_kept_connection_costs_the_caller_nothing(tmp_path: Path) -> None:
    """The job is sent again, on a fresh connection, with the same id."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server, Producer(server.url) as producer:
        producer.declare_model("m")
        producer.submit(model="m", prompt="x")
        server.kill()
        server.start()

        producer.submit(model="m", prompt="x")

        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert len(queued(client)) == 2


def test_threads_share_a_producer(client: redis.Redis, producer: Producer) -> None:
    """Every job is queued, each under its own id."""
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda n: producer.submit(model="m", prompt=f"{n}").job_id, range(400)))

    assert {message["headers"]["id"] for message in queued(client)} == ids
    assert len(ids) == 400


def test_models_are_declared_listed_and_forgotten(client: redis.Redis, producer: Producer) -> None:
    """A declaration keeps its date; a forgotten model's jobs are refused again."""
    client.hset(keys.MODELS, "served", json.dumps({"declared_by": "worker", "since": 5.0}))
    producer.declare_model("served")

    known = producer.models()
    assert {name: model.declared_by for name, model in known.items()} == {"m": "operator", "served": "worker"}
    assert known["served"].since == 5.0
    assert (producer.forget_model("m"), producer.forget_model("m")) == (True, False)
    with pytest.raises(UnknownModel):
        producer.submit(model="m", prompt="x")
