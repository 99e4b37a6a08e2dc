"""A Redis that is there and lets nobody in, or lets in and allows nothing: said at once, with what to do."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.acl_server import Guarded, guarded_server
from tests.running import FLEET
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.exporter.reconciler import Reconciler

ANSWERS = {
    "no password": "put it into the address",
    "wrong password": "look at the user and the password",
    "no rights": "the rights of its role",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """With the users of the compose stack."""
    with guarded_server(tmp_path_factory.mktemp("guarded")) as server:
        yield server


def address(server: Guarded, case: str) -> str:
    """One that is refused."""
    return {
        "no password": f"redis://{server.address}/0",
        "wrong password": f"redis://worker:guess@{server.address}/0",
        "no rights": server.url("observer"),
    }[case]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command to its end; it must not wait for a server that will not change its mind."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return subprocess.run([*FLEET, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("case", ANSWERS)
@pytest.mark.parametrize("command", ["worker", "gateway", "doctor", "submit"])
def test_every_command_says_what_to_do(server: Guarded, case: str, command: str) -> None:
    """In a line, and with an exit code that no restart is tried after."""
    url, port = address(server, case), str(free_port())
    settings = ["engine.kind=simulated", "worker.gpus=none", f"metrics.port={port}", f"redis.url={url}"]
    options = {
        "worker": ["--model", "sim", *(part for setting in settings for part in ("--set", setting))],
        "gateway": ["--redis-url", url, "--port", port],
        "doctor": ["--redis-only", "--redis-url", url],
        "submit": ["--redis-url", url, "--model", "sim", "--prompt", "x"],
    }
    done = run(command, *options[command])
    said = done.stdout + done.stderr
    assert ANSWERS[case] in said, said
    assert done.returncode == (78 if command == "worker" else 1)
    assert "Traceback" not in said
    assert "guess" not in said


def test_a_gateway_whose_port_is_taken_says_so() -> None:
    """With the option that names another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("gateway", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use); set --port to a free one" in done.stderr


def test_the_exporter_hears_events_of_a_server_that_comes_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of the two is started first."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with redis.Redis.from_url(url) as client:
        reconciler = Reconciler(url, client, every_seconds=3600.0)
        reconciler.start()
        try:
            eventually(lambda: "hears no events" in caplog.text, what="it misses the server")
            with EmbeddedServer(tmp_path, port):
                eventually(lambda: client.pubsub_numpat() > 0, what="it listens")
        finally:
            reconciler.stop()
