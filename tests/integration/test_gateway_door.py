"""The gateway's door: ids, the access log, TLS, other origins, and what is too slow, too large or too much."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import redis
import trustme
from openai import OpenAI

from producer import JobState, Producer
from producer.gateway.metering import RATE_LIMIT_HEADERS
from producer.queue_counts import count_queues
from tests.gateways import running_gateway
from tests.running import FLEET, simulated
from tests.waiting import eventually

PROMPT = "the moon is a cheese"
WAITING: dict[str, Any] = {"model": "m", "prompt": PROMPT}
"""A job of a model that nobody serves."""
ORIGIN = "https://app.example"
OPENAI_JS_HEADERS = {"authorization", "content-type", "idempotency-key"} | {
    f"x-stainless-{what}"
    for what in (
        *("arch", "helper-method", "lang", "os", "package-version"),
        *("retry-count", "runtime", "runtime-version", "timeout"),
    )
}
"""What OpenAI's client for JavaScript sends from a browser, and a preflight asks for."""


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """Of a fleet without workers: what is asked waits."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """A bare connection."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        yield connection


def heard(connection: socket.socket) -> str:
    """All that comes until the other side closes it."""
    received = b""
    while more := connection.recv(65_536):
        received += more
    return received.decode()


def refusal(*arguments: str) -> str:
    """What ``fleet gateway`` says when it does not start."""
    command = [*FLEET, "gateway", "--port", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


def waiting_jobs(redis_url: str) -> int:
    """How many jobs wait."""
    with redis.Redis.from_url(redis_url) as client:
        return sum(counts.waiting for counts in count_queues(client))


def jobs_of(producer: Producer, log: Path) -> list[JobState]:
    """Where the jobs stand whose ids are in the log, in its order."""
    return [producer.status(found).state for found in re.findall(r"job_id=(\S+)", log.read_text())]


def test_every_answer_has_a_request_id(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """The client's own when it can stand in a log, a fresh one otherwise, on errors too."""
    producer.create_key("acme")
    with (
        running_gateway(redis_url, tmp_path, "--require-keys", "--cors-origin", ORIGIN) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        for answer in (
            client.get("/health", headers={"X-Request-Id": "mine-1.2_3~"}),
            client.get("/v1/models", headers={"X-Request-Id": "mine-1.2_3~"}),
            client.options("/v1/jobs", headers=preflight | {"X-Request-Id": "mine-1.2_3~"}),
        ):
            assert answer.headers.get_list("x-request-id") == ["mine-1.2_3~"]
        made = [client.get("/health", headers={"X-Request-Id": bad}) for bad in ("", "x" * 129, "a b", 'a"b')]
        made += [client.get("/health"), client.get("/nothing")]
        ids = [answer.headers["x-request-id"] for answer in made]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_the_log_has_a_line_for_each_request_and_nothing_secret(redis_url: str, tmp_path: Path) -> None:
    """Who asked for what, how it ended, how long it took and which job it was; never a prompt, a key or a query."""
    with simulated(redis_url, tmp_path), Producer(redis_url) as producer:
        secret = producer.create_key("acme", tenant="Acme & Co\n2026 forged")
        [key] = producer.api_keys()
        with running_gateway(redis_url, tmp_path, "--require-keys") as address:
            headers = {"Authorization": f"Bearer {secret}", "X-Request-Id": "r1"}
            with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
                asked = {"model": "sim", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3}
                job_id = client.post("/v1/chat/completions", json=asked).json()["id"].removeprefix("chatcmpl-")
                assert client.post("/v1/chat/completions", json=asked | {"stream": True}).status_code == 200
                assert client.get("/v1/models", params={"after": PROMPT}).status_code == 200
                assert client.get("/v1/jobs/a%0Ab").status_code == 404
                assert client.post("/v1/jobs", json={"prompt": PROMPT}).status_code == 400
            assert httpx.get(f"{address}/v1/models", timeout=60).status_code == 401
    text = (tmp_path / "gateway.log").read_text()
    known = f"action=request_answered request_id=r1 key_id={key.key_id} tenant=Acme%20%26%20Co%0A2026%20forged"
    assert re.search(rf"INFO POST /v1/chat/completions 200 \d+\.\d{{3}}s {known} job_id={job_id}\n", text)
    assert re.search(rf"INFO POST /v1/chat/completions 200 \d+\.\d{{3}}s {known} job_id=\S+\n", text.split(job_id)[1])
    assert re.search(rf"INFO GET /v1/models 200 \d+\.\d{{3}}s {known}\n", text)
    assert re.search(rf"INFO GET /v1/jobs/a%0Ab 404 \d+\.\d{{3}}s {known}\n", text)
    assert re.search(rf"INFO POST /v1/jobs 400 \d+\.\d{{3}}s {known}\n", text)
    assert re.search(r"INFO GET /v1/models 401 \d+\.\d{3}s action=request_answered request_id=[0-9a-f]{32}\n", text)
    for never in (PROMPT, "cheese", secret, "after="):
        assert never not in text


def test_the_gateway_speaks_tls(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """With the operator's certificate; the official client takes it, and nobody is answered without."""
    authority, files = trustme.CA(), (tmp_path / "certificate.pem", tmp_path / "key.pem")
    certificate = authority.issue_cert("127.0.0.1")
    files[0].write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    files[1].write_bytes(certificate.private_key_pem.bytes())
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    tls = ("--tls-certificate", str(files[0]), "--tls-key", str(files[1]))
    with running_gateway(redis_url, tmp_path, *tls, tls=trusting) as address:
        with OpenAI(
            base_url=f"{address}/v1",
            api_key="none",
            http_client=httpx.Client(verify=trusting, timeout=60),
            max_retries=0,
        ) as client:
            assert [model.id for model in client.models.list()] == list(producer.models())
        with (
            OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as stranger,
            pytest.raises(openai.APIConnectionError),
        ):
            stranger.models.list()
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{address}/health".replace("https", "http"), timeout=60)
    other = tmp_path / "other.pem"
    other.write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
    assert "the key is the certificate's own" in refusal("--tls-certificate", str(files[0]), "--tls-key", str(other))
    assert "No such file" in refusal("--tls-certificate", "/nowhere", "--tls-key", str(files[1]))
    assert "needs both --tls-certificate FILE and --tls-key FILE" in refusal("--tls-key", str(files[1]))


def test_beyond_this_machine_without_tls_is_warned_about_once(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """It is allowed: a proxy in front may have it."""
    producer.create_key("acme")
    with running_gateway(redis_url, tmp_path, "--require-keys", "--host", "0.0.0.0") as address:  # noqa: S104
        assert httpx.get(f"{address}/health", timeout=60).status_code == 200
    assert (tmp_path / "gateway.log").read_text().count("without TLS: keys and prompts can be read") == 1


def test_web_pages_of_the_named_origins_may_call(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """They ask whether they may before they have a key to show; and can read what answers say beside the body."""
    producer.create_key("acme")
    origins = ("--cors-origin", f"{ORIGIN},https://b.example", "--cors-origin", "http://localhost:3000/")
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join(OPENAI_JS_HEADERS)}
    with running_gateway(redis_url, tmp_path, "--require-keys", *origins) as address:
        for origin in (ORIGIN, "https://b.example", "http://localhost:3000"):
            allowed = httpx.options(f"{address}/v1/chat/completions", headers=asks | {"Origin": origin})
            assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
            assert set(allowed.headers["access-control-allow-headers"].split(",")) >= OPENAI_JS_HEADERS
        strange = httpx.options(f"{address}/v1/models", headers=asks | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in strange.headers
        refused = httpx.get(f"{address}/v1/models", headers={"Origin": ORIGIN}, timeout=60)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
        exposed = set(refused.headers["access-control-expose-headers"].split(", "))
        assert exposed == {"Location", "Retry-After", "X-Request-Id", "x-should-retry", *RATE_LIMIT_HEADERS}
    for bad in ("app.example", "https://app.example/page", "ftp://a"):
        assert "an origin is a scheme, a host" in refusal("--cors-origin", bad)


def test_without_origins_no_web_page_may_call(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """The default."""
    assert producer.models()
    with running_gateway(redis_url, tmp_path) as address:
        answer = httpx.get(f"{address}/v1/models", headers={"Origin": ORIGIN}, timeout=60)
        asked = httpx.options(
            f"{address}/v1/models", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        )
    assert answer.status_code == 200
    assert asked.status_code == 405
    assert not [name for name in (*answer.headers, *asked.headers) if name.startswith("access-control")]


def test_a_request_that_does_not_come_to_its_end_is_given_up(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """A late body is told so, a late head has no one to be told; a quick request is answered meanwhile."""
    assert producer.models()
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    with (
        running_gateway(redis_url, tmp_path, "--read-timeout-seconds", "0.5") as address,
        connected(address) as silent,
        connected(address) as half,
        connected(address) as late,
        connected(address) as again,
    ):
        half.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: ")
        late.sendall(head)
        again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HT")
        assert httpx.post(f"{address}/v1/jobs", json=WAITING, timeout=60).status_code == 202
        answer = heard(late)
        assert answer.startswith("HTTP/1.1 408 ")
        assert "connection: close" in answer.lower()
        body = json.loads(answer.partition("\r\n\r\n")[2])
        assert body["error"]["message"] == "the body did not arrive within 0.5 s"
        assert (heard(silent), heard(half)) == ("", "")
        assert heard(again).count("HTTP/1.1 200 OK") == 1


def test_an_idle_connection_is_closed_and_a_large_head_is_refused(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """Neither holds anything for long."""
    assert producer.models()
    with running_gateway(redis_url, tmp_path, "--keep-alive-seconds", "1") as address:
        with connected(address) as idle:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert heard(idle).startswith("HTTP/1.1 200 OK")
        with connected(address) as large:
            large.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 16 * 1024)
            assert heard(large).startswith("HTTP/1.1 400 ")


def test_who_waits_too_long_is_told_so_and_the_job_is_cancelled(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """Unless it has a key by which somebody may come back for it."""
    with (
        running_gateway(redis_url, tmp_path, "--request-timeout-seconds", "0.5") as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(
            openai.InternalServerError, match=r"no answer within 0\.5 s, and the job is cancelled"
        ) as one:
            client.completions.create(**WAITING)
        with pytest.raises(openai.InternalServerError, match="the job goes on") as other:
            client.completions.create(**WAITING, extra_headers={"Idempotency-Key": "k"})
    assert [(error.value.status_code, error.value.code) for error in (one, other)] == [(504, "timeout")] * 2
    assert jobs_of(producer, tmp_path / "gateway.log") == [JobState.CANCELLED, JobState.QUEUED]


def test_who_comes_when_the_gateway_is_full_is_told_so_at_once(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """That it lives, it says all the same, and an operator comes in; whoever cancels makes room."""
    producer.submit(model="m", prompt="x", idempotency_key="known")
    with (
        running_gateway(redis_url, tmp_path, "--max-concurrent-requests", "2") as address,
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        job = client.post("/v1/jobs", json=WAITING).json()["id"]

        def wait_inside() -> int:
            # The test's own look at whether it is full may be what has filled it.
            while (answer := client.get(f"/v1/jobs/{job}/result", params={"wait": 60})).status_code == 503:
                pass
            return answer.status_code

        waiting = [pool.submit(wait_inside) for _ in range(2)]
        eventually(lambda: client.get("/v1/models").status_code == 503, what="it is full")
        refused = client.post("/v1/jobs", json=WAITING)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        for path in ("/health", "/ui"):
            assert client.get(path, follow_redirects=True).status_code == 200
        assert client.get("/ready").json()["ready_workers"] == {"m": 0}
        assert client.delete("/v1/conversations/nobody").status_code == 404
        assert client.delete(f"/v1/jobs/{job}").json() == {"id": job, "outcome": "cancelled"}
        assert [status.result() for status in waiting] == [499, 499]
        eventually(lambda: client.get("/v1/models").status_code == 200, what="there is room")


def test_who_still_waits_when_the_gateway_stops_does_not_hold_it_up(
    redis_url: str, producer: Producer, tmp_path: Path
) -> None:
    """It ends by itself, and the job stays."""
    with ThreadPoolExecutor(1) as pool:
        with running_gateway(redis_url, tmp_path, "--shutdown-timeout-seconds", "1") as address:
            waiting = pool.submit(httpx.post, f"{address}/v1/completions", json=WAITING, timeout=60)
            eventually(lambda: waiting_jobs(redis_url) == 1, what="the job is queued")
        assert isinstance(waiting.exception(), httpx.TransportError) or waiting.result().status_code == 500
    assert jobs_of(producer, tmp_path / "gateway.log") == [JobState.QUEUED]
