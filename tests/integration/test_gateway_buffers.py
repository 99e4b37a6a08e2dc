"""However much is sent to the gateway at once, and however slowly its answers are taken, its memory is bounded."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from producer import Producer
from producer.queue_counts import count_queues
from tests.gateways import running_gateway
from tests.running import simulated
from tests.waiting import eventually

MIB = 1024 * 1024
BOUND = 16 * MIB
BODY_BYTES = 3 * MIB
FIT = BOUND // BODY_BYTES
MANY = 40
JSON = {"Content-Type": "application/json"}


def gateway_process() -> psutil.Process:
    """This test's own."""
    [found] = [child for child in psutil.Process().children(recursive=True) if "gateway" in child.cmdline()]
    return found


@pytest.fixture
def address(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """Of a gateway with the least bound, in front of a fleet that nobody serves yet."""
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
    with running_gateway(redis_url, tmp_path, "--max-buffered-bytes", str(BOUND)) as address:
        yield address


def waiting(redis_url: str) -> int:
    """How many jobs wait."""
    with redis.Redis.from_url(redis_url) as client:
        return sum(counts.waiting for counts in count_queues(client))


def completion(address: str, number: int) -> httpx.Response:
    """A large prompt; its answer is waited for."""
    job = {"model": "sim", "prompt": f"{number} " + "x" * BODY_BYTES, "max_tokens": 2, "seed": number}
    with httpx.Client(base_url=address, timeout=120) as client:
        return client.post("/v1/completions", json=job)


def connected(address: str) -> socket.socket:
    """A connection that takes little at a time."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    return connection


def test_many_large_bodies_are_refused_and_those_taken_are_answered(
    redis_url: str, address: str, tmp_path: Path
) -> None:
    """Before they are read: the process holds what its bound allows, and small requests are served beside."""
    process = gateway_process()
    before = process.memory_info().rss
    with ThreadPoolExecutor(MANY) as pool:
        replies: list[Future[httpx.Response]] = [pool.submit(completion, address, n) for n in range(MANY)]
        eventually(lambda: sum(reply.done() for reply in replies) >= MANY - FIT, what="the others are refused")
        refused = [reply.result() for reply in replies if reply.done()]
        assert {reply.status_code for reply in refused} == {503}
        assert {reply.json()["error"]["code"] for reply in refused} == {"overloaded"}
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        taken = MANY - len(refused)
        eventually(lambda: waiting(redis_url) == taken, what="those taken are queued")
        assert process.memory_info().rss - before < 8 * BOUND
        assert httpx.get(f"{address}/v1/models", timeout=30).status_code == 200
        with simulated(redis_url, tmp_path, seconds_per_token=0.001, max_model_len=10_000_000):
            answered = [reply.result(120) for reply in replies if reply.result(120).status_code != 503]
    assert [reply.status_code for reply in answered] == [200] * taken
    assert FIT - 1 <= taken <= FIT
    reply = httpx.post(f"{address}/v1/jobs", content=b"x" * 8 * MIB, headers=JSON, timeout=60)
    assert reply.json()["error"]["code"] == "invalid_json", reply.text


def test_a_body_without_a_length_counts_as_it_comes(address: str) -> None:
    """It is refused as soon as there is no room, and leaves none taken."""

    def pieces() -> Iterator[bytes]:
        yield b'{"model": "sim", "prompt": "'
        for _ in range(32):
            yield b"x" * 65536

    with ExitStack() as held:
        for _ in range(FIT):
            connection = held.enter_context(connected(address))
            kind, length = "Content-Type: application/json", f"Content-Length: {BODY_BYTES}"
            connection.sendall(f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{length}\r\n\r\n".encode())
        eventually(
            lambda: (
                httpx.post(f"{address}/v1/jobs", content=b"x" * BODY_BYTES, headers=JSON, timeout=60).status_code == 503
            ),
            what="all of it is taken",
        )
        reply = httpx.post(f"{address}/v1/jobs", content=pieces(), headers=JSON, timeout=60)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        bulk = httpx.post(
            f"{address}/v1/jobs/bulk", content=b"{}", headers={"Content-Type": "application/x-ndjson"}, timeout=60
        )
        assert bulk.json()["error"]["code"] == "overloaded"
    eventually(
        lambda: httpx.post(f"{address}/v1/jobs", content=b"x" * 8 * MIB, headers=JSON, timeout=60).status_code == 400,
        what="there is room again",
    )


def test_readers_that_take_nothing_do_not_grow_the_process(redis_url: str, address: str, tmp_path: Path) -> None:
    """What they do not take stays in Redis: streams, and whole answers that are read again and again."""
    process = gateway_process()
    with simulated(redis_url, tmp_path, seconds_per_token=0, max_model_len=200_000), Producer(redis_url) as producer:
        jobs = [
            producer.submit(model="sim", prompt="x", stream=stream, sampling={"max_tokens": 50_000, "ignore_eos": True})
            for stream in (True, False)
        ]
        [text, _] = [producer.result(job, timeout_seconds=120).text for job in jobs]
        before = process.memory_info().rss
        with ExitStack() as readers:
            for number in range(MANY):
                job, path = (jobs[0], "events") if number % 2 else (jobs[1], "result")
                slow = readers.enter_context(connected(address))
                slow.sendall(f"GET /v1/jobs/{job.job_id}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert slow.recv(12) == b"HTTP/1.1 200"
            grown = process.memory_info().rss - before
            assert httpx.get(f"{address}/v1/jobs/{jobs[1].job_id}/result", timeout=60).json()["choices"][0]["text"]
        assert grown < MANY * 2 * len(text) + 32 * MIB
        last = httpx.get(f"{address}/v1/jobs/{jobs[1].job_id}/result", timeout=60).json()
    assert len(last["choices"][0]["text"]) > 200_000
