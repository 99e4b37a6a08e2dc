"""The submitting process, from outside: started, killed, started again, and asked to stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chaos.evidence import Submitted
from tests.chaos.submitter import Orders, read_ledger

ROOT: Final = Path(__file__).parents[2]
FINISH_SECONDS: Final = 600.0


class SubmittingProcess:
    """Its ledger outlives it."""

    def __init__(self, orders: Orders, folder: Path) -> None:
        self._orders = orders
        self._log = folder / "submitter.log"
        self._ledger = Path(orders.ledger)
        self._process: subprocess.Popen[bytes] | None = None
        self._lines_at_start = 0

    def start(self) -> None:
        """Start it; it begins with the first job."""
        self._lines_at_start = self.lines
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.submitter", self._orders.to_json()],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ,
            )

    def kill(self) -> None:
        """SIGKILL; nothing happens when it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def has_begun(self) -> bool:
        """Whether the process that was started last has submitted something: it hears signals by then."""
        return self.lines > self._lines_at_start

    def finish(self) -> None:
        """Ask it to stop when it has submitted what it must, and wait for that; it must have begun.

        Raises:
            subprocess.SubprocessError: it did not, or failed.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            exit_code = self._process.wait(FINISH_SECONDS)
            if exit_code:
                raise subprocess.CalledProcessError(exit_code, self._process.args)

    def submitted(self) -> list[Submitted]:
        """Every confirmed submission of all its processes."""
        return read_ledger(self._ledger)

    @property
    def lines(self) -> int:
        """How many those are."""
        return self._ledger.read_bytes().count(b"\n") if self._ledger.exists() else 0
