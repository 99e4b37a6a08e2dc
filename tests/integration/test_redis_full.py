"""A Redis without memory: who submits is refused in time, and all that was taken is answered."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from producer import JobState, Priority, Producer, QueueFull, RedisFull, Submission, keys
from tests.gateways import running_gateway
from tests.leasing import LeaseQueue, end, raws, tags
from tests.running import RunningFleet, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.transport.lease_store import FinishStatus, Release

MAX_MEMORY_BYTES = 48 * 1024 * 1024
PROMPT = "page " * 8_000
"""40 kB: a small server is full after a thousand of them."""

JOB = {"model": "sim", "prompt": PROMPT, "sampling": {"max_tokens": 2}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that is soon full, and knows a model."""
    with EmbeddedServer(tmp_path / "valkey", free_port(), max_memory_bytes=MAX_MEMORY_BYTES) as server:
        with Producer(server.url) as producer:
            producer.declare_model("sim")
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A plain look at it."""
    with redis.Redis.from_url(server.url, decode_responses=True) as plain:
        yield plain


def fleet_on(server: EmbeddedServer, folder: Path) -> RunningFleet:
    """A worker that takes such prompts."""
    return simulated(server.url, folder, seconds_per_token=0.001, max_model_len=100_000)


def requests(count: int) -> Iterator[dict[str, object]]:
    """So many large jobs with short answers."""
    return ({"model": "sim", "prompt": f"{number} {PROMPT}", "sampling": {"max_tokens": 2}} for number in range(count))


def used_share(client: redis.Redis) -> float:
    """Of maxmemory."""
    return float(client.info("memory")["used_memory"] / MAX_MEMORY_BYTES)


def test_what_was_taken_by_a_full_redis_is_answered_once(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    """Producer and gateway refuse from nine tenths on; the workers have the rest, and then there is room again."""
    with Producer(server.url) as producer, running_gateway(server.url, tmp_path) as address:
        producer.lists_jobs = True
        outcomes = producer.submit_many(requests(2_000))
        taken = [outcome.submission.job_id for outcome in outcomes if outcome.submission is not None]
        errors = [outcome.error for outcome in outcomes if outcome.submission is None]
        assert len(taken) > 500
        assert errors
        assert {type(error) for error in errors} == {RedisFull}
        assert 0.85 < used_share(client) < 1

        with pytest.raises(QueueFull, match=r"MiB in use, and jobs are taken below 43\.2\)") as refused:
            taken.extend(producer.submit(request).job_id for request in requests(500))
        assert (refused.value.code.retryable, refused.value.retry_after_seconds) == (True, 5)

        reply = httpx.post(f"{address}/v1/jobs", json=JOB, timeout=30)
        while reply.status_code == httpx.codes.ACCEPTED:
            taken.append(reply.json()["id"])
            reply = httpx.post(f"{address}/v1/jobs", json=JOB, timeout=30)
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "5")
        assert reply.json()["error"]["code"] == "queue_full"
        assert httpx.get(f"{address}/v1/jobs/{taken[0]}", timeout=30).json()["state"] == JobState.QUEUED

        with fleet_on(server, tmp_path) as fleet:
            answered = {outcome.job_id: outcome.unwrap() for outcome in producer.results(taken, timeout_seconds=240)}
            assert answered.keys() == set(taken)
            assert fleet.metric("fleet_requests_total", status="succeeded") == len(taken)
            assert fleet.metric("fleet_requests_total") == len(taken)
            eventually(lambda: not client.exists(keys.MEMORY), what="the server is asked again")
            reply = httpx.post(f"{address}/v1/completions", json={"model": "sim", "prompt": "x"}, timeout=60)
            assert reply.status_code == 200


def test_a_map_waits_for_memory_and_loses_nothing(server: EmbeddedServer, tmp_path: Path) -> None:
    """More jobs than there is memory for at a time; a worker comes when no more fit."""
    with Producer(server.url) as producer:
        taken = [outcome for outcome in producer.submit_many(requests(2_000)) if outcome.submission is not None]
        with fleet_on(server, tmp_path) as fleet:
            texts = [outcome.unwrap().text for outcome in producer.map(requests(1_000), window=500)]
            eventually(
                lambda: fleet.metric("fleet_requests_total") == len(taken) + len(texts), what="each is answered once"
            )
    assert len(texts) == 1_000


@pytest.fixture
def full(client: redis.Redis) -> Callable[[], None]:
    """Leaves the server without any memory, for whoever asks for some."""

    def fill() -> None:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("more", "memory")

    return fill


def test_leases_are_kept_ended_and_given_back_without_any_memory(
    server: EmbeddedServer, full: Callable[[], None]
) -> None:
    """A worker whose leases could not be renewed would lose its jobs, and its answers with them."""
    with LeaseQueue.at(server.url) as queue:
        queue.push(b"a", b"b", b"c")
        store, other = queue.store(), queue.store("two")
        claimed = store.claim(2, held=0).messages
        queue.expire(*tags(claimed))
        full()
        assert store.renew(tags(claimed)).lost_tags == frozenset()
        assert not other.reap()
        assert store.finish([end(claimed[0].tag, "job")]) == [FinishStatus.STORED]
        assert queue.result("job") is not None
        [third] = other.claim(1, held=0).messages
        store.release([claimed[1].tag], Release.SUSPECT, reason="its engine died")
        queue.client.config_set("maxmemory", 0)
        queue.expire(third.tag)
        full()
        assert len(store.reap()) == 1
        assert raws(store.claim(1, held=0).messages) == [b"b"]  # the suspect, alone
        assert queue.waiting() == [b"c"]


def test_a_worker_goes_on_and_is_heard_of_and_a_job_is_cancelled_without_any_memory(
    server: EmbeddedServer, client: redis.Redis, full: Callable[[], None], tmp_path: Path
) -> None:
    """Its leases outlast many renewals, its word does not grow old, and what it ends is told."""
    with (
        RunningFleet(
            server.url,
            tmp_path,
            options={
                "engine.kind": "simulated",
                "worker.gpus": "none",
                "engine.options.seconds_per_token": 0.05,
                "worker.lease_seconds": 1.0,
            },
        ) as fleet,
        Producer(server.url) as producer,
    ):
        jobs: list[Submission] = [
            producer.submit(
                model="sim", prompt="x", priority=Priority.NORMAL, sampling={"max_tokens": 80, "ignore_eos": True}
            )
            for _ in range(8)
        ]
        eventually(lambda: fleet.metric("fleet_active_jobs") == 8, what="all run")
        full()
        said_at = client.zscore(keys.WORKERS, producer.workers()[0].worker)
        assert producer.cancel(jobs[0]).value == "cancelled"
        answered = [outcome.unwrap() for outcome in producer.results(jobs[1:], timeout_seconds=60)]
        assert len(answered) == 7
        assert {producer.status(job).attempt for job in jobs[1:]} == {1}
        assert client.zscore(keys.WORKERS, producer.workers()[0].worker) > said_at
        eventually(lambda: producer.status(jobs[1]).state is JobState.SUCCEEDED, what="its record says so")
        assert fleet.metric("fleet_requests_total", status="succeeded") == 7


def test_a_worker_starts_without_any_memory_and_makes_room(
    server: EmbeddedServer, client: redis.Redis, full: Callable[[], None], tmp_path: Path
) -> None:
    """All workers may have died on the way there: nobody but a new one can end what waits."""
    with Producer(server.url) as producer:
        jobs = [producer.submit(model="sim", prompt="x", sampling={"max_tokens": 2}) for _ in range(4)]
        full()
        with fleet_on(server, tmp_path) as fleet:
            answered = [outcome.unwrap() for outcome in producer.results(jobs, timeout_seconds=60)]
            assert len(answered) == 4
            assert [worker.model for worker in producer.workers()] == ["sim"]
            assert fleet.metric("fleet_requests_total", status="succeeded") == 4
    assert not client.zcard(keys.WORKERS)


def test_a_server_that_may_not_be_asked_for_its_memory_refuses_by_itself(
    server: EmbeddedServer, client: redis.Redis, full: Callable[[], None]
) -> None:
    """As a producer is told whose Redis user was made before it was asked."""
    client.execute_command("ACL", "SETUSER", "default", "-info")
    with Producer(server.url) as producer:
        assert producer.submit(model="sim", prompt="x").duplicate is False
        full()
        before = client.llen(keys.lane("sim", Priority.INTERACTIVE)), client.dbsize()
        for fields in ({}, {"tenant": "t"}, {"idempotency_key": "k"}):
            with pytest.raises(RedisFull, match=r"no memory for more jobs: submit again"):
                producer.submit(model="sim", prompt="x", priority="interactive", **fields)
    assert (client.llen(keys.lane("sim", Priority.INTERACTIVE)), client.dbsize()) <= before
