"""A real fleet for tests: the ``fleet worker`` command as its user runs it, and what its pages say."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from celery import Celery
from kombu import pools
from prometheus_client.parser import text_string_to_metric_families

from producer import Producer
from tests.waiting import eventually, free_port
from workers.app import AppSettings, make_app

FLEET = [str(Path(sys.executable).with_name("fleet"))]
ENGINE_START_SECONDS = 600.0
ENGINE_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
VLLM_OPTIONS = {"max_num_seqs": 64, "dtype": "float32", "enforce_eager": True}


@dataclass
class RunningFleet:
    """``fleet worker`` as a process; use as a context manager, which waits until every worker is ready."""

    redis_url: str
    folder: Path
    model: str = "sim"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name."""
    arguments: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """Everything that the fleet printed."""
        return self.folder / "fleet.log"

    @property
    def served(self) -> str:
        """The name that jobs use."""
        return Path(self.model).name

    def start(self) -> None:
        """Start it and return at once."""
        settings = {
            "redis.url": self.redis_url,
            "metrics.port": self.port,
            "worker.restart_backoff_initial_seconds": 0.2,
        } | dict(self.options)
        pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
        command = [*FLEET, "worker", "--model", self.model, *pairs, *self.arguments]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | ENGINE_ENVIRONMENT | dict(self.environ),
                cwd=self.folder,
            )

    def wait_until_ready(self) -> None:
        """Return when every worker takes jobs; fail with the log's end when the fleet ends instead."""
        for worker in range(self.workers):
            eventually(
                lambda: self._ended() or self.page("/ready", worker)[0] == 200,  # noqa: B023 - called at once
                seconds=ENGINE_START_SECONDS,
                what=f"worker {worker} ready",
            )
        if self._ended():
            pytest.fail(f"the fleet ended: {self.log.read_text()[-2000:]}")

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, *, seconds: float = 90.0) -> int:
        """SIGTERM, and wait; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the fleet did not stop within {seconds} s: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """All of it, as a machine does that loses its power."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.wait()

    def worker_processes(self) -> list[psutil.Process]:
        """The worker processes that live now: the supervisor has no other children."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def page(self, path: str, worker: int = 0) -> tuple[int, str]:
        """Status and text of a page of a worker; status 0 when nobody listens."""
        return page_of(f"http://127.0.0.1:{self.port + worker}{path}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a series' samples that carry these labels; 0 where there is none."""
        families = text_string_to_metric_families(self.page("/metrics")[1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    @contextmanager
    def celery(self) -> Iterator[Celery]:
        """A Celery app as an operator or another service would have it; leaves no connection open."""
        app = make_app(AppSettings(self.redis_url, self.served))
        try:
            yield app
        finally:
            app.backend.result_consumer.stop()
            # A result that is collected later would subscribe anew to unsubscribe.
            app.backend.result_consumer.cancel_for = lambda _task_id: None
            app.backend.client.connection_pool.disconnect()
            pools.reset()
            app.close()

    def producer(self) -> Producer:
        """A producer for this fleet."""
        return Producer(self.redis_url)


def page_of(url: str) -> tuple[int, str]:
    """Status and text of a page; status 0 when nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own pages
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def slow_fleet(redis_url: str, folder: Path) -> RunningFleet:
    """One that answers at 100 tokens a second, for minutes where that is asked for; a killed worker is missed soon."""
    fleet = simulated(redis_url, folder, seconds_per_token=0.01, max_num_seqs=8, max_model_len=20_000)
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 2.0}
    return fleet


def simulated(redis_url: str, folder: Path, **engine_options: object) -> RunningFleet:
    """A fleet with the simulated engine."""
    options = {f"engine.options.{name}": value for name, value in engine_options.items()}
    return RunningFleet(redis_url, folder, options={"engine.kind": "simulated", "worker.gpus": "none"} | options)
