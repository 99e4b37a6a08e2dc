"""One process that a driver starts: its log, its readiness, its end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from workers.bench.target import BenchError

POLL_SECONDS: Final = 0.1
START_TIMEOUT_SECONDS: Final = 1800.0
STOP_TIMEOUT_SECONDS: Final = 45.0
LAST_LINES: Final = 15


@dataclass
class Child:
    """A command, started in a session of its own."""

    command: Sequence[str]
    log: Path
    environ: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the driver's own command
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environ),
                cwd=self.log.parent,  # no settings file of the caller's folder is found here
                start_new_session=True,
            )

    @property
    def process(self) -> psutil.Process:
        """The running process.

        Raises:
            BenchError: it was not started.
        """
        if self._process is None:
            raise BenchError(f"{self.command[0]} is not running")
        return psutil.Process(self._process.pid)

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return when ``is_ready``.

        Raises:
            BenchError: the process ended first, or half an hour passed.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"it did not get ready:\n{self.last_words()}")
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    def stop(self) -> None:
        """Ask it to end; what does not end in time is killed with its process group. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
