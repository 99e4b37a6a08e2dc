"""The whole fleet over TLS, and what it refuses: strangers' certificates, other names, old ones."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from producer import AsyncProducer, FleetUnreachable, Producer, SubmitFailed
from tests.acl_server import MAKE_SECRETS
from tests.gateways import running_gateway
from tests.running import FLEET, simulated
from tests.tls_server import LONG_AGO, PASSWORD, Certificates, TlsServer, running_tls_server
from tests.waiting import eventually, free_port

JOB: dict[str, Any] = {"model": "sim", "prompt": "Once", "sampling": {"max_tokens": 5}}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """For a server that is called localhost."""
    return Certificates.made(tmp_path / "certificates", "localhost")


@pytest.fixture
def server(tmp_path: Path, certificates: Certificates) -> Iterator[TlsServer]:
    """With one user, whose password has to be encoded."""
    with running_tls_server(tmp_path, certificates) as server:
        yield server


def fleet(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command with this address in its environment."""
    environ = os.environ | {"FLEET_REDIS_URL": url}
    return subprocess.run([*FLEET, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_a_fleet_over_tls_with_its_users(tmp_path: Path, certificates: Certificates) -> None:
    """Supervisor, worker, gateway, Flower, both producers and the command line, each as its own user."""
    secrets = tmp_path / "secrets"
    subprocess.run([MAKE_SECRETS, secrets], check=True, capture_output=True)

    def password(user: str) -> str:
        return (secrets / f"redis_url_{user}").read_text().partition(f"{user}:")[2].partition("@")[0]

    with running_tls_server(tmp_path, certificates, acl=(secrets / "redis_users").read_text) as server:
        urls = {user: server.url(user, password(user)) for user in ("worker", "gateway", "observer", "producer")}
        with (
            simulated(urls["worker"], tmp_path) as running,
            running_gateway(urls["gateway"], tmp_path) as address,
            Producer(urls["producer"]) as producer,
        ):
            assert producer.result(producer.submit(**JOB), 60).usage.completion_tokens == 5
            chat = {"model": "sim", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}
            answer = httpx.post(f"{address}/v1/chat/completions", json=chat, timeout=60)
            assert answer.json()["choices"][0]["message"]["content"]
            assert "sim" in fleet(server.url("operator", password("operator")), "workers").stdout
            submitted = fleet(urls["producer"], "submit", "--model", "sim", "--prompt", "Why?", "--wait")
            assert submitted.returncode == 0, submitted.stderr
            flower_sees_the_worker(urls["observer"], tmp_path)
            assert running.worker_processes()


async def test_an_async_producer_over_tls(tmp_path: Path, server: TlsServer) -> None:
    """A stream, and its result."""
    with simulated(server.url(), tmp_path):
        async with AsyncProducer(server.url()) as producer:
            job = await producer.submit(**JOB | {"stream": True})
            assert [event async for event in producer.stream(job)]
            assert (await producer.result(job, 60)).usage.completion_tokens == 5


def flower_sees_the_worker(url: str, folder: Path) -> None:
    """It knows the worker and counts its queue."""
    port = free_port()
    environ = os.environ | {"FLEET_REDIS_URL": url, "FLEET_FLOWER__BASIC_AUTH": "me:sesame"}
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen([*FLEET, "flower", "--port", str(port)], env=environ, stdout=log, stderr=log)

    def says(path: str) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", auth=("me", "sesame"), timeout=20)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK and "fleet.sim" in answer.text

    try:
        for path in ("/api/workers?refresh=1", "/api/queues/length"):
            eventually(lambda: says(path), seconds=90, what=f"Flower answers {path}")  # noqa: B023 - called at once
    finally:
        process.terminate()
        process.wait(30)


def refusals(tmp_path: Path, case: str) -> Iterator[tuple[str, str]]:
    """An address that must be refused, and what the error must say."""
    names, not_after = ("localhost",), None
    if case == "another name":
        names = ("redis.example.org",)
    if case == "expired":
        not_after = LONG_AGO
    certificates = Certificates.made(tmp_path / "certificates", *names, not_after=not_after)
    with running_tls_server(tmp_path, certificates) as server:
        stranger = Certificates.made(tmp_path / "stranger", "localhost").ca
        url, advice = {
            "a stranger's CA": (server.url(ssl_ca_certs=stranger), "ssl_ca_certs in the address"),
            "no CA": (server.url(ssl_ca_certs=None), "ssl_ca_certs in the address"),
            "another name": (server.url(), "is for another name"),
            "an address": (server.url(host="127.0.0.1"), "is for another name"),
            "expired": (server.url(), "renew the server's certificate"),
        }[case]
        yield url, advice


CASES = ("a stranger's CA", "no CA", "another name", "an address", "expired")


@pytest.fixture(params=CASES)
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Each of them."""
    yield from refusals(tmp_path, request.param)


async def test_who_cannot_be_trusted_is_refused_at_once(refused: tuple[str, str]) -> None:
    """By both producers, with what to do; the password was not sent, and is not in the error."""
    url, advice = refused
    began = time.monotonic()
    with Producer(url) as producer:
        with pytest.raises(SubmitFailed, match=advice) as failed:
            producer.submit(**JOB)
        with pytest.raises(FleetUnreachable, match=advice):
            producer.models()
    async with AsyncProducer(url) as async_producer:
        with pytest.raises(SubmitFailed, match=advice):
            await async_producer.submit(**JOB)
    assert PASSWORD not in str(failed.value)
    assert time.monotonic() - began < 20


def test_no_command_hangs_on_it(refused: tuple[str, str]) -> None:
    """Neither the command line nor a worker, which ends before it loads a model."""
    url, advice = refused
    asked = fleet(url, "queues")
    assert (asked.returncode, advice in asked.stderr) == (1, True), asked.stderr
    options = ["--set", "engine.kind=simulated", "--set", "worker.gpus=none", "--set", f"metrics.port={free_port()}"]
    worker = fleet(url, "worker", "--model", "sim", *options, "--set", "worker.max_failed_starts=1")
    assert worker.returncode != 0
    assert advice in worker.stdout + worker.stderr
    assert "Traceback" not in worker.stdout + worker.stderr + asked.stderr
    assert PASSWORD not in worker.stdout + worker.stderr + asked.stderr


def test_clients_may_have_to_show_a_certificate(tmp_path: Path, certificates: Certificates) -> None:
    """Of the server's CA, for the whole fleet."""
    with running_tls_server(tmp_path, certificates, asks_clients=True) as server:
        url = server.url(ssl_certfile=certificates.client, ssl_keyfile=certificates.client_key)
        with simulated(url, tmp_path), Producer(url) as producer:
            assert producer.result(producer.submit(**JOB), 60).usage.completion_tokens == 5
        # The server says why when it may: it can also have gone before the client has written what it had to.
        said = r"ssl_certfile and ssl_keyfile|reset|closed|Broken pipe"
        with Producer(server.url()) as nobody, pytest.raises(SubmitFailed, match=said):
            nobody.submit(**JOB)


def test_a_server_without_tls_is_given_up_in_time(redis_url: str) -> None:
    """It waits for the rest of a command, so nothing but the time tells."""
    with Producer(redis_url.replace("redis://", "rediss://")) as producer, pytest.raises(SubmitFailed):
        producer.submit(**JOB)


def test_without_tls_nothing_is_said_to_a_server_that_wants_it(server: TlsServer) -> None:
    """It is refused, in seconds."""
    plain = f"redis://localhost:{server.port}/0"
    with Producer(plain) as producer, pytest.raises(SubmitFailed):
        producer.submit(**JOB)
