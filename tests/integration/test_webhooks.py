"""Webhooks of a real fleet, told by real deliverers to a real receiver."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from producer import Producer, WebhookState
from producer.cli import build_app
from tests.gateways import running_gateway
from tests.receivers import Received, Receiver, Reply, receiving
from tests.running import FLEET, RunningFleet, simulated
from tests.waiting import eventually, free_port

JOB: dict[str, Any] = {"model": "sim", "prompt": "Once", "sampling": {"max_tokens": 5}}
LONG: dict[str, Any] = JOB | {"sampling": {"max_tokens": 1500, "ignore_eos": True}}
QUICK = ("--first-retry-seconds", "0.02", "--timeout-seconds", "2", "--allow-hosts", "localhost")


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """Of the simulated engine."""
    with simulated(redis_url, tmp_path, seconds_per_token=0.002) as running:
        yield running


@pytest.fixture
def producer(fleet: RunningFleet) -> Iterator[Producer]:
    """For that fleet."""
    with fleet.producer() as connected:
        yield connected


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where webhooks go."""
    with receiving() as listening:
        yield listening


@contextmanager
def delivering(
    redis_url: str, folder: Path, *arguments: str, name: str = "deliverer"
) -> Iterator["subprocess.Popen[bytes]"]:
    """``fleet webhooks deliver``; unless it was killed, it has stopped by itself afterwards."""
    log = folder / f"{name}.log"
    command = [*FLEET, "webhooks", "deliver", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | {"FLEET_REDIS_URL": redis_url}, stdout=output, stderr=output
        )
    try:
        eventually(lambda: "delivered from here" in log.read_text(), seconds=90, what="it has started")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
        assert process.wait() in (0, -signal.SIGKILL), log.read_text()


def test_however_a_job_ends_it_is_told_once_and_signed(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """Answered, expired, cancelled; submitted over HTTP, and told by the gateway."""
    secret = producer.create_webhook_secret("acme")
    job = {"tenant": "acme", "webhook": receiver.url}
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with running_gateway(fleet.redis_url, tmp_path, "--webhook-allow-hosts", "localhost") as address:
        with httpx.Client(base_url=address, timeout=30) as client:
            answered, expired, cancelled = (
                client.post("/v1/jobs", json=fields | job).json()["id"]
                for fields in (JOB, JOB | {"deadline": past}, LONG)
            )
            assert client.delete(f"/v1/jobs/{cancelled}").json()["outcome"] == "cancelled"
            refused = client.post("/v1/jobs", json=JOB | {"webhook": receiver.url})
            assert (refused.status_code, "fleet webhooks secret create" in refused.text) == (400, True)
            unwelcome = client.post("/v1/jobs", json=JOB | {"webhook": "ftp://example.org"})
            assert (unwelcome.status_code, "a URL with a host" in unwelcome.text) == (400, True)
        eventually(lambda: len(receiver.received) == 3, what="all are told")
        eventually(lambda: not producer.webhooks(), what="nothing is left")
    told = {one.event_id: one.verified(secret) for one in receiver.received}
    assert len(told) == len(receiver.received) == 3
    ends = {event["data"]["id"]: event for event in told.values()}
    assert {job: event["type"] for job, event in ends.items()} == {
        answered: "job.succeeded",
        expired: "job.failed",
        cancelled: "job.cancelled",
    }
    assert ends[answered]["data"]["result"] == producer.result(answered).model_dump(mode="json")
    assert ends[expired]["data"]["failure"]["code"] == "expired"


def test_a_receiver_that_was_down_is_told_when_it_is_up(
    fleet: RunningFleet, producer: Producer, tmp_path: Path
) -> None:
    """And one that was busy when it is not, all under one id."""
    secret, port = producer.create_webhook_secret(), free_port()
    job = producer.submit(**JOB | {"webhook": f"http://localhost:{port}/hook"}).job_id
    with delivering(fleet.redis_url, tmp_path, *QUICK):
        eventually(lambda: any(event.wrong for event in producer.webhooks()), what="an attempt has failed")
        [event] = producer.webhooks()
        assert event.wrong.startswith("ConnectError")
        replies: Iterator[Reply] = iter([(503, {"retry-after": "0"}), (302, {"location": "/"}), (200, {})])
        with receiving(port) as receiver:
            receiver.answer = lambda _: next(replies)
            eventually(lambda: not producer.webhooks(), seconds=60, what="it is told")
        assert {one.event_id for one in receiver.received} == {event.event_id}
        assert [one.verified(secret)["data"]["id"] for one in receiver.received] == [job] * 3
    log = (tmp_path / "deliverer.log").read_text()
    told = rf"webhook: localhost:{port}, told action=webhook_told attempt=\d+ event_id={event.event_id}\n"
    assert re.search(told, log), log
    for unsaid in ("/hook", "Once", secret):
        assert unsaid not in log


def test_a_deliverer_that_is_killed_in_the_middle_is_stood_in_for(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """When its lease has ended, by the next one, under the same id."""
    secret, release = producer.create_webhook_secret(), threading.Event()

    def first_waits(_: Received) -> Reply:
        if len(receiver.received) == 1:
            release.wait(60)
        return 204, {}

    receiver.answer = first_waits
    producer.submit(**JOB | {"webhook": receiver.url})
    with delivering(fleet.redis_url, tmp_path, "--timeout-seconds", "3", *QUICK[-2:], name="first") as first:
        eventually(lambda: receiver.received, what="the first attempt")
        first.kill()
        first.wait()
    with delivering(fleet.redis_url, tmp_path, *QUICK, name="second"):
        eventually(lambda: len(receiver.received) == 2, what="the second attempt")
        eventually(lambda: not producer.webhooks(), what="it is told")
    release.set()
    assert len({one.event_id for one in receiver.received}) == 1
    assert receiver.received[1].verified(secret)["type"] == "job.succeeded"


def test_two_deliverers_tell_each_job_once(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """However many jobs there are."""
    producer.create_webhook_secret()
    with (
        delivering(fleet.redis_url, tmp_path, *QUICK[-2:], name="first"),
        delivering(fleet.redis_url, tmp_path, *QUICK[-2:], name="second"),
    ):
        jobs = [outcome.unwrap().job_id for outcome in producer.submit_many([JOB | {"webhook": receiver.url}] * 200)]
        eventually(lambda: len(receiver.received) >= 200 and not producer.webhooks(), seconds=60, what="all are told")
    assert len(receiver.received) == 200
    assert {one.event_id.split("_")[1] for one in receiver.received} == set(jobs)


def test_a_job_whose_worker_is_killed_is_told_once_when_it_ends(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """By whoever answers it then."""
    secret = producer.create_webhook_secret()
    with delivering(fleet.redis_url, tmp_path, *QUICK):
        job = producer.submit(**LONG | {"webhook": receiver.url}).job_id
        eventually(lambda: producer.status(job).state == "running", what="it runs")
        fleet.worker_processes()[0].kill()
        eventually(lambda: not producer.webhooks(), seconds=90, what="it is told")
    [one] = receiver.received
    assert one.verified(secret)["data"]["result"]["attempt"] == 2


def test_a_private_address_is_refused_until_it_is_allowed_by_name(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """Given up at once, kept, and told when somebody has allowed it and replayed it."""
    secret = producer.create_webhook_secret()
    run = CliRunner(env={"FLEET_REDIS_URL": fleet.redis_url})
    producer.submit(**JOB | {"webhook": receiver.url})
    with delivering(fleet.redis_url, tmp_path, name="strict"):
        eventually(lambda: producer.webhooks(WebhookState.DEAD), what="it is given up")
    assert receiver.received == []
    listed = run.invoke(build_app([]), ["webhooks", "list", "--state", "dead"]).output.strip().split("\t")
    assert (listed[1], listed[4], listed[5]) == ("dead", "1", receiver.url)
    assert re.match(r"refused: localhost is at (127.0.0.1|::1), which is not public", listed[6])
    assert run.invoke(build_app([]), ["webhooks", "replay", "msg_none"]).exit_code == 1
    assert run.invoke(build_app([]), ["webhooks", "replay"]).exit_code == 2
    assert run.invoke(build_app([]), ["webhooks", "replay", "--all"]).output == f"{listed[0]}\tdue\n"
    with delivering(fleet.redis_url, tmp_path, "--allow-hosts", "localhost"):
        eventually(lambda: receiver.received and not producer.webhooks(), what="it is told")
    assert receiver.received[0].event_id == listed[0]
    assert receiver.received[0].verified(secret)["type"] == "job.succeeded"


def test_a_rotated_secret_signs_beside_the_new_one(
    fleet: RunningFleet, producer: Producer, receiver: Receiver, tmp_path: Path
) -> None:
    """From the command line; one that was deleted signs nothing, and the event is kept until there is one again."""
    run = CliRunner(env={"FLEET_REDIS_URL": fleet.redis_url})

    def fleet_says(*words: str) -> str:
        return run.invoke(build_app([]), ["webhooks", "secret", *words]).output.strip()

    old, new = fleet_says("create", "acme"), fleet_says("rotate", "acme")
    assert [line.split("\t")[0] for line in fleet_says("list").splitlines()] == ["acme", "acme"]
    assert old not in fleet_says("list")
    job = JOB | {"tenant": "acme", "webhook": receiver.url}
    with delivering(fleet.redis_url, tmp_path, *QUICK):
        producer.submit(**job)
        eventually(lambda: receiver.received, what="it is told")
        assert receiver.received[0].verified(old) == receiver.received[0].verified(new)
        waiting = producer.submit(**LONG | {"tenant": "acme", "webhook": receiver.url})
        assert fleet_says("delete", "acme") == ""
        producer.cancel(waiting)
        eventually(lambda: producer.webhooks(WebhookState.DEAD), what="it is given up")
        [dead] = producer.webhooks(WebhookState.DEAD)
        assert "no secret to sign it with" in dead.wrong
        newest = fleet_says("create", "acme")
        producer.replay_webhook(dead.event_id)
        eventually(lambda: len(receiver.received) == 2, what="it is told")
    assert receiver.received[1].verified(newest)["type"] == "job.cancelled"


def test_the_documents_receiver_believes_what_is_told(fleet: RunningFleet, producer: Producer, tmp_path: Path) -> None:
    """The example is run as it stands; it refuses what nobody signed."""
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    [example] = re.findall(r"```python\n(import os\n.*?)```", text, re.DOTALL)
    port = free_port()
    environ = os.environ | {"PORT": str(port), "WEBHOOK_SECRET": producer.create_webhook_secret()}
    process = subprocess.Popen(
        [sys.executable, "-c", example], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}/"

        def forged() -> bool:
            try:
                return httpx.post(url, content=b"{}", timeout=60).status_code == 401
            except httpx.TransportError:
                return False

        eventually(forged, what="it listens, and refuses")
        with delivering(fleet.redis_url, tmp_path, "--allow-hosts", "127.0.0.1"):
            job = producer.submit(**JOB | {"webhook": url}).job_id
            eventually(lambda: not producer.webhooks(), what="it is told")
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=30)
    assert printed == f"job.succeeded {job}\n"
