#!/usr/bin/env python3
"""Kills containers of a running stack at random while jobs come, and says whether each job was answered, and once.

``deploy/compose/check.sh`` runs it. On a stack of your own that is up: ``deploy/compose/chaos.py --gateway URL --key K
--project NAME``. It needs Docker, and Python alone. The exit code is 1 when a job was lost, changed or has no answer,
and when no strike at a worker hit a running job, because then nothing was shown.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

TRIES_SECONDS = 120.0
"""For one request: the gateway, or Redis behind it, may be on its way up."""
SPREAD = 7919
"""A prime: jobs that follow each other are of very different lengths, and the same in every run."""
BACK_SECONDS = 180.0
"""For a service that was hit to be healthy again."""


@dataclass
class Stack:
    """The containers, by their compose project."""

    project: str

    def containers(self, service: str) -> list[str]:
        """Ids of those that run."""
        labels = {"project": self.project, "service": service}
        filters = [
            part for name, value in labels.items() for part in ("-f", f"label=com.docker.compose.{name}={value}")
        ]
        return _docker("ps", "-q", *filters).split()

    def kill(self, service: str) -> None:
        """As a crash would: the container's first process, which Docker then starts again."""
        for container in self.containers(service):
            process = int(_docker("inspect", "--format", "{{.State.Pid}}", container))
            try:
                os.kill(process, signal.SIGKILL)
            except PermissionError:  # not root: Docker does not start again what it was told to kill
                _docker("kill", container)
                _docker("start", container)

    def restart(self, service: str) -> None:
        """In good order."""
        for container in self.containers(service):
            _docker("restart", "--time", "30", container)

    def freeze(self, service: str) -> None:
        """For longer than a lease: whoever is frozen must find its jobs gone."""
        for container in self.containers(service):
            _docker("pause", container)
        time.sleep(8)
        for container in self.containers(service):
            _docker("unpause", container)

    def wait_until_healthy(self, service: str) -> None:
        """All of its containers."""
        deadline = time.monotonic() + BACK_SECONDS
        while time.monotonic() < deadline:
            states = [
                _docker("inspect", "--format", "{{.State.Health.Status}}", one) for one in self.containers(service)
            ]
            if states and all(state.strip() == "healthy" for state in states):
                return
            time.sleep(1)
        raise TimeoutError(f"{service} is not healthy {BACK_SECONDS:g} s after it was hit")


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607


@dataclass
class Door:
    """The gateway; whatever fails in passing is tried again, under the same idempotency key."""

    address: str
    key: str
    troubles: Counter[str] = field(default_factory=Counter)

    def ask(
        self, path: str, body: dict[str, Any] | None = None, idempotency_key: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON; a 5xx or a broken connection is tried again."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        deadline = time.monotonic() + TRIES_SECONDS
        while True:
            data = json.dumps(body).encode() if body is not None else None
            request = urllib.request.Request(self.address + path, data, headers)  # noqa: S310 - as it was given
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                        return error.code, json.load(error)
                    self.troubles[str(error.code)] += 1
            except (OSError, ValueError) as error:
                self.troubles[type(error).__name__] += 1
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} was not answered for {TRIES_SECONDS:g} s: {dict(self.troubles)}")
            time.sleep(0.5)


@dataclass
class Run:
    """What was asked, and what became of it."""

    door: Door
    model: str
    output_tokens: tuple[int, int]
    """Of the shortest and the longest job."""
    wrong: list[str] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)
    """Id to the tokens that it is to have."""

    def submit_until(self, is_over: Callable[[], bool], pause_seconds: float) -> None:
        """A job every so often, each of a length of its own, each sent twice."""
        while not is_over() and not self.wrong:
            number = len(self.jobs)
            least, most = self.output_tokens
            tokens = least + number * SPREAD % (most - least + 1)
            sampling = {"max_tokens": tokens, "ignore_eos": True}
            body = {"model": self.model, "prompt": f"Job {number}", "sampling": sampling}
            try:
                ids = {self.door.ask("/v1/jobs", body, f"chaos-{number}")[1]["id"] for _ in range(2)}
            except (TimeoutError, KeyError) as error:
                self.wrong.append(f"job {number} was not taken: {error}")
                return
            if len(ids) != 1:
                self.wrong.append(f"one idempotency key made two jobs: {ids}")
            self.jobs[ids.pop()] = tokens
            time.sleep(pause_seconds)

    def collect(self) -> Counter[int]:
        """The answer of each job, twice; how many took how many attempts."""
        attempts: Counter[int] = Counter()
        for job_id, tokens in self.jobs.items():
            first, again = (self._result(job_id) for _ in range(2))
            if first != again:
                self.wrong.append(f"{job_id}: two answers")
            if first.get("id") != job_id or first["usage"]["completion_tokens"] != tokens:
                self.wrong.append(f"{job_id}: not its own answer: {json.dumps(first)[:200]}")
            attempts[first.get("attempt", 0)] += 1
        return attempts

    def _result(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 300
        while True:
            status, answer = self.door.ask(f"/v1/jobs/{job_id}/result?wait=30")
            if status == HTTPStatus.OK:
                return answer
            if status != HTTPStatus.ACCEPTED or time.monotonic() > deadline:
                self.wrong.append(f"{job_id}: {status} {json.dumps(answer)[:200]}")
                return {"id": job_id, "usage": {"completion_tokens": self.jobs[job_id]}}


def main() -> int:
    """Strike until the time is up, then count."""
    given = _parse()
    chance = random.Random(given.seed)  # noqa: S311 - to be repeated
    stack, run = Stack(given.project), Run(Door(given.gateway, given.key), given.model, given.output_tokens)
    strikes = [
        ("kill", given.worker),
        ("kill", "gateway"),
        ("kill", "redis"),
        ("restart", "redis"),
        ("freeze", given.worker),
    ]
    over = threading.Event()
    submitting = threading.Thread(target=run.submit_until, args=(over.is_set, given.pause_seconds))
    began = time.monotonic()
    submitting.start()
    struck: Counter[str] = Counter()
    order: list[tuple[str, str]] = []
    while time.monotonic() - began < given.seconds or len(struck) < len(strikes):
        if not order:
            order = chance.sample(strikes, len(strikes))
        fault, service = order.pop()
        getattr(stack, fault)(service)
        struck[f"{fault} {service}"] += 1
        print(f"{time.monotonic() - began:4.0f} s  {fault} {service}; {len(run.jobs)} jobs so far", flush=True)
        stack.wait_until_healthy(service)
        time.sleep(chance.uniform(1, 10))
    over.set()
    submitting.join()
    attempts = run.collect()
    if set(attempts) <= {1}:
        run.wrong.append("no strike hit a running job: ask for longer ones (--output-tokens), or more of them")
    print(
        json.dumps(
            {
                "seed": given.seed,
                "seconds": round(time.monotonic() - began),
                "strikes": struck,
                "jobs": len(run.jobs),
                "by_attempts": dict(sorted(attempts.items())),
                "tried_again": run.door.troubles,
                "wrong": run.wrong,
            },
            indent=2,
        )
    )
    return 1 if run.wrong or not run.jobs else 0


def _sizes(words: str) -> tuple[int, int]:
    least, _, most = words.partition(":")
    if not 1 <= int(least) <= int(most):
        raise argparse.ArgumentTypeError(f"{words!r} is not LEAST:MOST tokens, as in 20:800")
    return int(least), int(most)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", required=True, help="http://HOST:PORT")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--project", default="fleet-check", help="of compose")
    parser.add_argument("--worker", default="worker-cpu", help="the worker's service")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--output-tokens", type=_sizes, default=(20, 800), metavar="LEAST:MOST", help="of a job")
    parser.add_argument("--pause-seconds", type=float, default=0.5, help="between two jobs")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
