"""Real worker processes with the simulated engine on one server, more and more of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from benchmarks.scaling.jobs import MODEL
from workers.local.stack import free_port, page_is_ok
from workers.supervisor import OVERRIDES_VARIABLE

SLOTS = 256
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1


@dataclass
class Fleet:
    """Worker processes of one model; all are stopped at the end of the ``with`` block."""

    redis_url: str
    folder: Path
    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def grow_to(self, count: int) -> None:
        """Start workers until there are so many, one after the other; return when all take jobs."""
        while len(self.workers) < count:
            self._start_one()

    def _start_one(self) -> None:
        port = free_port(9600)
        settings = {
            "model.name": MODEL,
            "engine.kind": "simulated",
            "engine.options.seconds_per_token": 0,
            "engine.options.max_num_seqs": SLOTS,
            "metrics.port": port,
        }
        environ = {"FLEET_REDIS_URL": self.redis_url, OVERRIDES_VARIABLE: json.dumps(settings)}
        log_file = self.folder / f"worker-{len(self.workers)}.log"
        with log_file.open("wb") as log:
            command = [sys.executable, "-m", "workers.process"]
            worker = subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log)  # noqa: S603 - ours
        self.workers.append(worker)
        while not page_is_ok(f"http://127.0.0.1:{port}/ready"):
            if worker.poll() is not None:
                raise RuntimeError(log_file.read_text())
            time.sleep(POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """CPU time of all worker processes until now."""
        spent = [psutil.Process(worker.pid).cpu_times() for worker in self.workers]
        return sum(times.user + times.system for times in spent)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody takes a job meanwhile."""
        for worker in self.workers:
            worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in self.workers:
                worker.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Raise when a worker has ended."""
        for worker in self.workers:
            if worker.poll() is not None:
                raise RuntimeError(f"worker process {worker.pid} ended with {worker.returncode}")
