"""The parent's side of a driver: start its process, have passes run, end it with everything that it started."""

import contextlib
import dataclasses
import json
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import psutil

from workers.bench.drivers.base import environment
from workers.bench.load import Load
from workers.bench.records import PassRecord
from workers.bench.target import BenchError, EngineTarget

STOP_SECONDS: Final = 60.0
LAST_LINES: Final = 15


class DriverProcess:
    """A context manager: the driver's process runs inside, and nothing of it is left afterwards, however that ends."""

    def __init__(self, name: str, target: EngineTarget, folder: Path) -> None:
        self._name = name
        self._target = target
        self._folder = folder
        self._log = folder / "driver.log"
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "workers.bench.drivers", self._name, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self._target),
                start_new_session=True,  # Ctrl-C is ours alone: we end it in order
            )
        self._say(self._process, dataclasses.asdict(self._target))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Return when it serves; at once the second time.

        Raises:
            BenchError: it failed; the message has its last words.
        """
        if not self._is_ready:
            self._answer("ready")
            self._is_ready = True

    def run(self, load: Load) -> PassRecord:
        """Run one pass.

        Raises:
            BenchError: the driver failed; the message has its last words.
        """
        self._say(self._running(), dataclasses.asdict(load))
        return PassRecord.parsed(self._answer("pass"))

    @staticmethod
    def _say(process: "subprocess.Popen[str]", request: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: its answer says why
            print(json.dumps(request), file=process.stdin, flush=True)

    def _answer(self, wanted: str) -> Any:  # noqa: ANN401 - JSON
        line = self._line(self._running())
        answer = json.loads(line) if line else {"error": f"its process ended:\n{self._last_words()}"}
        if wanted not in answer:
            raise BenchError(f"driver {self._name}: {answer['error']}")
        return answer[wanted]

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise BenchError(f"driver {self._name} is not running")
        return self._process

    def _line(self, process: "subprocess.Popen[str]") -> str:
        # Not a plain read: a process that outlives the driver may hold the pipe open.
        while process.stdout is not None:
            readable, _, _ = select.select([process.stdout], [], [], 1.0)
            if readable:
                return process.stdout.readline()
            if process.poll() is not None:
                break
        return ""

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    def stop(self) -> None:
        """Have it stop in order; what is left after a minute is killed. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        family = _family(process.pid)
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            family |= _family(process.pid)
            time.sleep(0.05)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _family(pid: int) -> set[psutil.Process]:
    """A process and all that descends from it now."""
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
