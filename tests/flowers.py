"""``fleet flower`` as its user runs it, and what its API says."""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.browsers import Browser
from tests.running import FLEET
from tests.waiting import eventually, free_port

OPEN_API = {"FLOWER_UNAUTHENTICATED_API": "true"}


@dataclass(frozen=True)
class RunningFlower:
    """One that answers."""

    address: str
    log: Path
    process: "subprocess.Popen[bytes]"
    login: str = ""
    """``USER:PASSWORD`` with which everything is asked for."""

    def ask(self, path: str, form: Mapping[str, object] | None = None) -> tuple[int, str]:
        """Status and text of a page, or what its API answers to a form; status 0 when nobody listens."""
        body = urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(f"{self.address}{path}", body)  # noqa: S310 - our own Flower
        if self.login:
            request.add_header("Authorization", f"Basic {base64.b64encode(self.login.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def get(self, path: str) -> dict[str, Any]:
        """What its API answers; nothing when it is not there (yet)."""
        status, text = self.ask(path)
        found: dict[str, Any] = json.loads(text) if status == 200 else {}
        return found

    def state(self, job_id: str) -> str | None:
        """Of a job, where it knows it."""
        return self.get(f"/api/task/info/{job_id}").get("state")

    def workers(self) -> dict[str, Any]:
        """The workers that it knows."""
        return self.get("/api/workers?refresh=1")

    def queue(self, name: str) -> int | None:
        """Messages in a queue, where it knows it."""
        queues = self.get("/api/queues/length").get("active_queues", [])
        return next((queue["messages"] for queue in queues if queue["name"] == name), None)

    def is_up(self) -> bool:
        """Whether it answers at all."""
        return self.ask("/healthcheck")[0] == 200

    def knows_a_worker(self) -> bool:
        """Its buttons need one, and its queues are those of workers."""
        return bool(self.workers())


def knows_a_worker(flower: RunningFlower) -> bool:
    """What most tests wait for."""
    return flower.knows_a_worker()


@contextmanager
def running_flower(
    redis_url: str,
    folder: Path,
    *,
    login: str = "",
    port: int | None = None,
    until: Callable[[RunningFlower], bool] = knows_a_worker,
    **environ: str,
) -> Iterator[RunningFlower]:
    """It is as far as ``until`` says when this begins, and has stopped afterwards.

    Its API asks for no password unless ``login`` gives one.
    """
    port, log = port or free_port(), folder / "flower.log"
    given = {"FLEET_FLOWER__BASIC_AUTH": login} if login else OPEN_API
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FLEET, "flower", "--redis-url", redis_url, "--port", str(port)],
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ | given | environ,
        )
    flower = RunningFlower(f"http://127.0.0.1:{port}", log, process, login)
    try:
        eventually(lambda: until(flower), what=f"Flower is there: {until.__name__}", seconds=60)
        yield flower
    finally:
        process.terminate()
        process.wait(30)


def log_in(browser: Browser, login: str) -> None:
    """As a person does in the box that a browser shows."""
    header = f"Basic {base64.b64encode(login.encode()).decode()}"
    browser.chrome.execute_cdp_cmd("Network.enable", {})
    browser.chrome.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
