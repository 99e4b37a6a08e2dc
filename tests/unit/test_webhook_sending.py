"""One attempt over a real network: where it goes, what it believes, and what it never does."""

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

from producer.webhooks.addresses import AddressPolicy
from producer.webhooks.network import CheckedNetwork, Resolver, addresses_of, connection_pool
from producer.webhooks.retrying import Answer
from producer.webhooks.sending import MOST_RESPONSE_BYTES, Sender
from tests.receivers import Received, Reply, receiving
from tests.waiting import free_port

ALLOWED = AddressPolicy(["localhost", "hooks.example"])
BODY = b'{"type":"job.succeeded"}'


@asynccontextmanager
async def sending(
    policy: AddressPolicy = ALLOWED, resolver: Resolver = addresses_of, timeout_seconds: float = 20.0
) -> AsyncIterator[Sender]:
    """A sender, closed afterwards."""
    sender = Sender.with_policy(policy, most_connections=4, resolver=resolver, timeout_seconds=timeout_seconds)
    try:
        yield sender
    finally:
        await sender.close()


class ChangingNames:
    """A name server whose answers for one name follow one another; the last stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _: int) -> Sequence[str]:
        """The next answer."""
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def test_body_and_headers_arrive_as_they_were_signed() -> None:
    """With the host's own name."""
    with receiving() as receiver:
        async with sending() as sender:
            assert await sender.send(receiver.url, {"webhook-id": "msg_1"}, BODY) == Answer(204)
        [one] = receiver.received
    assert (one.path, one.body) == ("/hook", BODY)
    assert one.headers["host"] == f"localhost:{receiver.port}"
    assert one.headers["content-type"] == "application/json"
    assert one.headers["webhook-id"] == "msg_1"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_an_address_that_is_not_public_is_not_called(host: str) -> None:
    """However it is written; the attempt is not made again by itself."""
    with receiving() as receiver:
        async with sending(AddressPolicy()) as sender:
            answer = await sender.send(f"http://{host}:{receiver.port}/hook", {}, BODY)
        assert receiver.received == []
    assert answer.is_hopeless
    assert "not public" in answer.trouble


async def test_a_redirect_is_not_followed() -> None:
    """Wherever it points: to an address that is refused, or to one that is allowed."""
    with receiving() as receiver, receiving() as other:
        for place in (f"http://127.0.0.1:{other.port}/private", other.url):
            receiver.answer = lambda _, place=place: (307, {"location": place})  # type: ignore[misc]
            async with sending() as sender:
                answer = await sender.send(receiver.url, {}, BODY)
            assert (answer.status, answer.wrong) == (307, "HTTP 307: redirects are not followed")
        assert other.received == []


class Wire(httpcore.AnyIOBackend):
    """An internet whose every address is this machine's; it notes which were called."""

    def __init__(self) -> None:
        self.called: list[str] = []

    async def connect_tcp(self, host: str, *arguments: Any) -> httpcore.AsyncNetworkStream:  # noqa: ANN401 - the library's
        """Connect here instead."""
        self.called.append(host)
        return await super().connect_tcp("127.0.0.1", *arguments)


async def test_a_name_that_changes_its_mind_is_refused() -> None:
    """The address that is called is the one that was checked: nothing is looked up twice for one connection.

    The next connection is looked up anew, and what the name says by then is refused.
    """
    names, wire = ChangingNames(["93.184.215.14"], ["127.0.0.1"]), Wire()
    with receiving() as receiver:
        receiver.answer = lambda _: (204, {"connection": "close"})
        sender = Sender(connection_pool(CheckedNetwork(AddressPolicy(), names, wire), 4))
        url = f"http://hooks.example:{receiver.port}/hook"
        assert await sender.send(url, {}, BODY) == Answer(204)
        assert (names.asked, wire.called) == (["hooks.example"], ["93.184.215.14"])
        assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"
        answer = await sender.send(url, {}, BODY)
        await sender.close()
        assert (answer.is_hopeless, "hooks.example is at 127.0.0.1" in answer.trouble) == (True, True)
        assert (len(names.asked), len(wire.called), len(receiver.received)) == (2, 1, 1)


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """Of a host that has several."""
    with receiving() as receiver:
        async with sending(resolver=ChangingNames(["127.0.0.9", "127.0.0.1"])) as sender:
            assert (await sender.send(receiver.url, {}, BODY)).is_told


async def test_whatever_goes_wrong_is_an_answer() -> None:
    """Nobody listens, no such name, no HTTP: to be tried again."""
    async with sending() as sender:
        closed = await sender.send(f"http://localhost:{free_port()}/", {}, BODY)
        assert (closed.status, closed.is_hopeless) == (None, False)
        assert closed.trouble.startswith("ConnectError")
        unknown = await sender.send("http://no-such-name.invalid/", {}, BODY)
        assert (unknown.is_hopeless, unknown.trouble.startswith("ConnectError")) == (False, True)


async def test_what_is_no_http_is_not_quoted() -> None:
    """Errors are listed and logged; nothing of what the receiver wrote is."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"a secret of the receiver's\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", port := free_port())
    async with server, sending() as sender:
        assert await sender.send(f"http://localhost:{port}/", {}, BODY) == Answer(trouble="RemoteProtocolError")


async def test_an_attempt_ends_in_time() -> None:
    """Though the receiver would say something later."""
    release = threading.Event()

    def late(_: Received) -> Reply:
        release.wait(30)
        return 204, {}

    with receiving() as receiver:
        receiver.answer = late
        async with sending(timeout_seconds=0.3) as sender:
            began_at = time.monotonic()
            answer = await sender.send(receiver.url, {}, BODY)
        assert time.monotonic() - began_at < 20
        release.set()
    assert answer == Answer(trouble="no answer within 0.3 s")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """A few KB of it are; what counts is its status."""
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 1024)
                sent += 1024
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", port := free_port())
    async with server, sending() as sender:
        answer = await sender.send(f"http://localhost:{port}/", {}, BODY)
        assert answer == Answer(503, retry_after="7")
    assert sent >= MOST_RESPONSE_BYTES


async def test_a_certificate_must_be_for_the_name_and_from_somebody_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to an address, and TLS is for the host all the same."""
    certificate = self_signed(tmp_path, "localhost")
    with receiving(certificate=certificate) as receiver:
        async with sending() as sender:
            assert "CERTIFICATE_VERIFY_FAILED" in (await sender.send(receiver.url, {}, BODY)).trouble
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with sending(resolver=ChangingNames(["127.0.0.1"])) as sender:
            assert await sender.send(receiver.url, {}, BODY) == Answer(204)
            other = await sender.send(f"https://hooks.example:{receiver.port}/", {}, BODY)
            assert "CERTIFICATE_VERIFY_FAILED" in other.trouble
        assert len(receiver.received) == 1


def self_signed(folder: Path, name: str) -> Path:
    """A certificate and its key in one file."""
    file = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    file.write_text(file.read_text() + (folder / "key.pem").read_text())
    return file
