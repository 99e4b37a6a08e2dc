"""Stock Celery on the stock transport, on the same stand: the same jobs, kills and invariants, to show the difference.

Late acknowledgement, prefetch 1, threads: what Celery's documentation gives to those who must not lose a task.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from celery import Celery

from producer import keys
from tests.chaos.evidence import Submitted
from tests.chaos.jobs import Job, JobShape

MODEL: Final = "stock"
TASK: Final = "chaos.sleep"
SLOTS: Final = 8
STOP_SECONDS: Final = 60.0
ROOT: Final = Path(__file__).parents[2]
URL_VARIABLE: Final = "CHAOS_STOCK_REDIS_URL"
VISIBILITY_VARIABLE: Final = "CHAOS_STOCK_VISIBILITY_SECONDS"
DEFAULT_VISIBILITY_SECONDS: Final = 3600
"""Celery's own."""
UNACKED: Final = "unacked"
UNACKED_INDEX: Final = "unacked_index"


class StockProducer:
    """Sends the task that takes as long as the simulated engine would. The id is Celery's: it knows no keys."""

    def __init__(self, redis_url: str) -> None:
        # Without a result backend: it would subscribe to every result.
        self._app = Celery("chaos", broker=redis_url, set_as_current=False)

    def submit(self, job: Job, _shape: JobShape) -> Submitted:
        """Send one."""
        sent = self._app.send_task(TASK, args=[job.key, job.tokens], queue=keys.queue(MODEL))
        return Submitted(job.key, str(sent.id), time.time())


@dataclass
class StockWorker:
    """One ``celery worker`` that is started again whenever it ends, under a new node name."""

    index: int
    redis_url: str
    folder: Path
    visibility_seconds: int
    starts: int = 0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def node(self) -> str:
        """Celery's name of the process that runs now."""
        return f"w{self.index}-{self.starts}@{socket.gethostname()}"

    def start(self) -> None:
        """Start it; returns at once."""
        self.starts += 1
        options = ["-P", "threads", "-c", str(SLOTS), "-n", self.node, "-Q", keys.queue(MODEL), "-l", "WARNING"]
        lean = ["--without-gossip", "--without-mingle"]
        environ = {URL_VARIABLE: self.redis_url, VISIBILITY_VARIABLE: str(self.visibility_seconds)}
        with (self.folder / f"stock-{self.index}.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.chaos.stock_app", "worker", *options, *lean],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environ,
                cwd=ROOT,
            )

    def look_after(self) -> None:
        """Start it again when it has ended."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def process(self) -> psutil.Process | None:
        """The process, while it lives."""
        if self._process is None or self._process.poll() is not None:
            return None
        return psutil.Process(self._process.pid)

    def stop(self) -> int:
        """SIGTERM, and its exit code; one that does not end is killed."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
