"""The web apps of examples/, served as their READMEs say, and somebody who uses them."""

import html
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import httpx
import psutil

from tests.waiting import eventually, free_port

ROOT: Final = Path(__file__).parents[1]
NAMES: Final = ("fastapi", "flask", "django")
PORT_IN_README: Final = "8080"
STOP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    event_id: str
    data: dict[str, Any]


def events(lines: Iterable[str]) -> Iterator[Event]:
    """What the lines of a stream say (HTML standard, section 9.2.6): what has no data is no event."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            yield Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
        fields = {}


def text_of(told: Iterable[Event]) -> str:
    """What the deltas say together."""
    return "".join(event.data["text"] for event in told if event.name == "delta")


@dataclass
class Site:
    """A served example, and a visitor's way to use it."""

    name: str
    address: str
    process: psutil.Process
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.address, timeout=60)

    def ask(self, prompt: str, key: str) -> httpx.Response:
        """Send a question."""
        if self.name == "fastapi":
            return self.client.post("/answers", json={"prompt": prompt}, headers={"Idempotency-Key": key})
        place = "/" if self.name == "django" else "/answers"
        return self.client.post(place, data={"prompt": prompt, "key": key} | self.token())

    def token(self) -> dict[str, str]:
        """What Django wants in each form, from its page."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.client.get("/").text)
        return {"csrfmiddlewaretoken": found[1]} if found else {}

    def asked(self, prompt: str, key: str) -> str:
        """Send a question that is taken; the path of its answer."""
        response = self.ask(prompt, key)
        assert response.status_code in {202, 302, 303}, (response.text, self.log.read_text()[-2000:])
        return response.headers["location"]

    def look(self, path: str) -> tuple[str, str]:
        """State and text of an answer."""
        response = self.client.get(path)
        assert response.status_code in {200, 202}, (response.text, self.log.read_text()[-2000:])
        if self.name == "fastapi":
            known = response.json()
            return known.get("code", known["state"]), known.get("text", "")
        state = re.search(r'<p id="state">(.*?)</p>', response.text, re.DOTALL)
        text = re.search(r'<pre id="answer">(.*?)</pre>', response.text, re.DOTALL)
        assert state
        assert text
        return state[1], html.unescape(text[1])

    @contextmanager
    def following(self, path: str, after: str = "") -> Iterator[Iterator[Event]]:
        """The events of an answer."""
        headers = {"Last-Event-ID": after} if after else {}
        with self.client.stream("GET", f"{path}/events", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            yield events(response.iter_lines())

    def cancel(self, path: str) -> None:
        """Stop a job."""
        if self.name == "fastapi":
            assert self.client.delete(path).json() == {"outcome": "cancelled"}
        else:
            assert self.client.post(f"{path}/cancel", data=self.token()).headers["location"] == path

    def connections(self, port: int) -> int:
        """How many the server's processes have to this port of another one."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(bool(c.raddr) and c.raddr.port == port for each in processes for c in each.net_connections("tcp"))


def readme_commands(name: str) -> list[list[str]]:
    """What the example's README has in its first block of commands."""
    block = re.search(r"```sh\n(.*?)```", (ROOT / "examples" / name / "README.md").read_text(), re.DOTALL)
    assert block
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


@dataclass(frozen=True)
class Example:
    """One of the web apps, and what it is served with."""

    name: str
    folder: Path
    """Where its database and log are."""
    redis_url: str
    model: str = "sim"
    stream_seconds: float = 50.0
    python: str = sys.executable
    port: int = field(default_factory=free_port)

    @property
    def log(self) -> Path:
        """Everything that its server printed."""
        return self.folder / f"{self.name}.log"

    def prepare(self) -> None:
        """Do what the README does before it serves."""
        for command in readme_commands(self.name):
            if command[:2] == ["python", "manage.py"]:
                self._start(*command[1:], output=subprocess.DEVNULL).wait(60)

    def serve(self) -> "subprocess.Popen[bytes]":
        """Start the README's server."""
        commands = readme_commands(self.name)
        [server] = (command for command in commands if command[0] in {"uvicorn", "gunicorn"})
        with self.log.open("ab") as output:
            return self._start("-m", *(part.replace(PORT_IN_README, str(self.port)) for part in server), output=output)

    def _start(self, *arguments: str, output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
        environ = {
            "FLEET_REDIS_URL": self.redis_url,
            "FLEET_MODEL": self.model,
            "STREAM_SECONDS": str(self.stream_seconds),
            "DJANGO_SECRET_KEY": "a test's",
            "DATABASE": str(self.folder / "db.sqlite3"),
            "HOME": str(self.folder),  # gunicorn puts a socket there
        }
        at = ROOT / "examples" / self.name
        command = [self.python, *arguments]
        return subprocess.Popen(command, cwd=at, env=os.environ | environ, stdout=output, stderr=output)


@contextmanager
def served(example: Example) -> Iterator[Site]:
    """The example as its README serves it, on another port; it has stopped by itself afterwards."""
    example.prepare()
    process, log = example.serve(), example.log
    try:
        address = f"http://127.0.0.1:{example.port}"
        eventually(lambda: process.poll() is not None or is_up(address), what=f"{example.name} answers")
        assert process.poll() is None, log.read_text()[-2000:]
        site = Site(example.name, address, psutil.Process(process.pid), log)
        with site.client:
            yield site
    finally:
        process.terminate()
        # Once it has closed everything, uvicorn ends by the signal that it was sent.
        assert process.wait(STOP_SECONDS) in {0, -signal.SIGTERM}, log.read_text()[-2000:]
        said = log.read_text()
        # uvicorn shows where it cut off who was still there.
        assert said.count("Traceback") == said.count("Task cancelled, timeout graceful shutdown exceeded"), said


def is_up(address: str) -> bool:
    """Whether a server answers there, whatever it says."""
    try:
        httpx.get(address, timeout=5)
    except httpx.TransportError:
        return False
    return True
