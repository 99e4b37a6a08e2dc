"""Who sees what of Flower, and what it remembers: without a worker, which is not needed for either."""

import http.cookiejar
import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from producer import Producer
from tests.flowers import RunningFlower, running_flower
from tests.running import FLEET
from tests.waiting import eventually, free_port

LOGIN = "ann:hush"


def is_up(flower: RunningFlower) -> bool:
    """It answers."""
    return flower.is_up()


def a_job_that_it_knows(flower: RunningFlower, producer: Producer) -> str:
    """Producers tell of jobs only while somebody listens, so the first ones may stay unknown."""
    sent: list[str] = []

    def is_known() -> bool:
        sent.append(producer.submit(model="later", prompt="x").job_id)
        return any(flower.state(job) for job in sent)

    producer.declare_model("later")
    eventually(is_known, what="Flower hears of a job")
    return next(job for job in sent if flower.state(job))


def saved_at(folder: Path) -> int:
    """When the state was written last; the library behind it may add to the file's name."""
    return max((file.stat().st_mtime_ns for file in folder.glob("state*") if ".tmp" not in file.name), default=0)


def is_newer(folder: Path, moment: int) -> bool:
    """Whether it was written after this."""
    return saved_at(folder) > moment


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """Of jobs that nobody runs."""
    with Producer(redis_url) as opened:
        yield opened


def test_strangers_see_nothing_but_that_it_is_up(redis_url: str, tmp_path: Path) -> None:
    """Not its metrics either, which Flower itself shows to anybody."""
    with running_flower(redis_url, tmp_path, login=LOGIN, until=is_up) as flower:
        stranger = RunningFlower(flower.address, flower.log, flower.process)
        liar = RunningFlower(flower.address, flower.log, flower.process, "ann:guess")
        for path in ("/", "/tasks", "/broker", "/metrics", "/api/workers", "/api/queues/length", "/api/task/result/x"):
            assert (stranger.ask(path)[0], liar.ask(path)[0]) == (401, 401), path
        for path in ("/api/worker/shutdown/x", "/api/task/revoke/x", "/api/task/send-task/x"):
            assert stranger.ask(path, {})[0] == 401, path
        assert stranger.ask("/healthcheck") == (200, "OK")
        status, page = flower.ask("/metrics")
        assert status == 200
        assert "process_resident_memory_bytes" in page
        assert flower.ask("/tasks")[0] == 200


def test_no_password_is_on_a_command_line(redis_url: str, tmp_path: Path) -> None:
    """``ps`` shows that to everybody on the machine."""
    with running_flower(redis_url, tmp_path, login=LOGIN, until=is_up) as flower:
        line = Path(f"/proc/{flower.process.pid}/cmdline").read_text()
        assert "workers.flower_site" in line
        assert "hush" not in line
        assert redis_url not in line


def test_it_is_shown_below_a_prefix(redis_url: str, tmp_path: Path) -> None:
    """As behind a proxy; probes come past that."""
    with running_flower(
        redis_url, tmp_path, login=LOGIN, until=is_up, FLEET_FLOWER__URL_PREFIX="/tools/flower/"
    ) as flower:
        assert flower.ask("/tasks")[0] == 404
        status, page = flower.ask("/tools/flower")
        assert status == 200
        assert "/tools/flower/static/" in page
        stranger = RunningFlower(flower.address, flower.log, flower.process)
        assert stranger.ask("/tools/flower/metrics")[0] == 401
        assert flower.ask("/tools/flower/metrics")[0] == 200
        assert flower.ask("/metrics")[0] == 404
        assert flower.ask("/tools/flower/healthcheck")[0] == 200


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FLEET_FLOWER__HOST": "0.0.0.0"}, "can be reached by others: set flower.basic_auth"),  # noqa: S104 - refused
        ({"FLEET_FLOWER__AUTH_PROVIDER": "github"}, "needs flower.auth, flower.oauth2_key"),
        ({"FLEET_FLOWER__STATE_FILE": "/proc/flower/state"}, "cannot be written to"),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_starts(
    variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    """With what to do."""
    found = subprocess.run(
        [*FLEET, "flower"], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert found.returncode == 78
    assert message in found.stderr


def test_a_taken_port_is_said_in_a_line(redis_url: str, tmp_path: Path) -> None:
    """Not as a traceback."""
    with running_flower(redis_url, tmp_path, until=is_up) as flower:
        port = flower.address.rpartition(":")[2]
        command = [*FLEET, "flower", "--redis-url", redis_url, "--port", port]
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert second.returncode == 78
        said = f"cannot listen on 127.0.0.1:{port} (Address already in use); set flower.port to a free one"
        assert second.stderr.strip().endswith(said)


def test_it_remembers_over_a_restart(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """What ends it with SIGTERM loses nothing, although nothing was saved before."""
    settings = {"FLEET_FLOWER__STATE_FILE": "kept/state", "FLEET_FLOWER__STATE_SAVE_SECONDS": "3600"}
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        job = a_job_that_it_knows(flower, producer)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        assert flower.state(job) == "PENDING"


def test_a_kill_loses_what_came_after_the_last_save(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """And no more than that."""
    settings = {"FLEET_FLOWER__STATE_FILE": str(tmp_path / "state"), "FLEET_FLOWER__STATE_SAVE_SECONDS": "1"}
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        job = a_job_that_it_knows(flower, producer)
        # The write that comes first may have begun before the job was known.
        for _ in range(2):
            before = saved_at(tmp_path)
            eventually(partial(is_newer, tmp_path, before), what="it is saved")
        flower.process.send_signal(signal.SIGKILL)
        flower.process.wait(30)
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        assert flower.state(job) == "PENDING"


def test_a_broken_state_is_put_aside(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """It starts with nothing, says so, and keeps what it hears from then on."""
    settings = {"FLEET_FLOWER__STATE_FILE": str(tmp_path / "state")}
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        forgotten = a_job_that_it_knows(flower, producer)
    for file in tmp_path.glob("state*"):
        file.write_bytes(b"half of something")
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        assert "moving it aside" in flower.log.read_text()
        assert flower.state(forgotten) is None
        kept = a_job_that_it_knows(flower, producer)
    assert {file.read_bytes() for file in tmp_path.glob("state*.corrupt")} == {b"half of something"}
    with running_flower(redis_url, tmp_path, until=is_up, **settings) as flower:
        assert flower.state(kept) == "PENDING"


def test_it_remembers_no_more_jobs_than_it_is_told_to(redis_url: str, producer: Producer, tmp_path: Path) -> None:
    """The oldest leave, so its memory has an end."""
    with running_flower(redis_url, tmp_path, until=is_up, FLEET_FLOWER__MAX_TASKS="100") as flower:
        first = a_job_that_it_knows(flower, producer)
        jobs = [producer.submit(model="later", prompt="x").job_id for _ in range(120)]
        eventually(lambda: flower.state(jobs[-1]) is not None, what="it knows the last")
        assert flower.state(first) is None
        assert len(flower.get("/api/tasks?limit=1000")) == 100


class Provider(BaseHTTPRequestHandler):
    """Okta, as far as Flower speaks with it; ``person`` is whoever logs in."""

    person: ClassVar = "ann@example.com"
    secrets: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Send the visitor back with a code, or say who they are."""
        parts = urlsplit(self.path)
        if parts.path == "/oauth2/v1/userinfo":
            self._say({"email": self.person, "email_verified": True})
            return
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?code=c0de&state={asked['state']}")
        self.end_headers()

    def do_POST(self) -> None:
        """Give a token for the code."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.secrets.append(form["client_secret"][0])
        self._say({"access_token": "t0ken"})

    def _say(self, content: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_provider() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/oauth2"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(address: str) -> tuple[int, str]:
    """What a new visitor gets who follows every redirect and keeps cookies."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    try:
        with urllib.request.build_opener(jar).open(address, timeout=30) as answer:
            return answer.status, answer.geturl()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_visitors_come_by_a_provider(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose address is named is let in, to the page that they asked for, and nobody else.

    No link leads them to another site. Machines without a session get 401.
    """
    port = free_port()
    with running_provider() as provider:
        settings = {
            "FLEET_FLOWER__AUTH_PROVIDER": "okta",
            "FLEET_FLOWER__AUTH": "ann@example.com|bob@example.com",
            "FLEET_FLOWER__OAUTH2_KEY": "client",
            "FLEET_FLOWER__OAUTH2_SECRET_FILE": str(tmp_path / "secret"),
            "FLEET_FLOWER__OAUTH2_REDIRECT_URI": f"http://127.0.0.1:{port}/login",
            "FLEET_FLOWER__OAUTH2_DOMAIN": provider,
        }
        (tmp_path / "secret").write_text("hush\n")
        with running_flower(redis_url, tmp_path, port=port, until=is_up, **settings) as flower:
            assert visit(f"{flower.address}/tasks?limit=5") == (200, f"{flower.address}/tasks?limit=5")
            assert Provider.secrets == ["hush"]
            for elsewhere in ("//evil.org", "https://evil.org", "/%5Cevil.org", "/%09/evil.org", "x", ""):
                assert visit(f"{flower.address}/login?next={elsewhere}") == (200, f"{flower.address}/"), elsewhere
            monkeypatch.setattr(Provider, "person", "eve@example.com")
            status, page = visit(f"{flower.address}/tasks")
            assert status == 403
            assert "Access denied" in page
            assert flower.ask("/metrics")[0] == 401
            assert flower.ask("/healthcheck")[0] == 200
            assert flower.ask("/api/task/revoke/x", {})[0] == 403
            assert "hush" not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()
