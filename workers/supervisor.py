"""One process that keeps the worker processes alive: starts each on its GPUs, restarts what dies, stops them all."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from workers.exit_codes import EXIT_CONFIGURATION
from workers.output import Output
from workers.parent import parent_arguments
from workers.placement import Slot

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
OVERRIDES_VARIABLE: Final = "FLEET_COMMAND_LINE_SETTINGS"
"""The supervisor's command-line settings, as one JSON object, for its worker processes."""
ALL_READY: Final = "every worker takes jobs"
"""The supervisor's log says this, once."""
STOP_GRACE_SECONDS: Final = 15.0
"""Beyond the drain budget: recording the last results, closing the engine."""
MAX_DOUBLINGS: Final = 30
"""Of the back-off; far beyond any sensible bound, and a float still holds it."""
HEALTHY_AFTER_SECONDS: Final = 60.0
"""A worker that lived this long starts its back-off anew."""


def overrides_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in :data:`OVERRIDES_VARIABLE`; none where a process was started by hand."""
    overrides: dict[str, Any] = json.loads(environ.get(OVERRIDES_VARIABLE, "{}"))
    return overrides


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How fast a worker that died comes back."""

    backoff_initial_seconds: float
    backoff_max_seconds: float
    max_failed_starts: int
    """Starts in a row that never became ready; then the supervisor gives up, for somebody to look."""

    def delay_seconds(self, failures: int) -> float:
        """Wait before restart number ``failures`` (1 is the first): doubling, bounded."""
        return min(self.backoff_initial_seconds * 2.0 ** min(failures - 1, MAX_DOUBLINGS), self.backoff_max_seconds)


@dataclass
class Child:
    """One worker process and its history."""

    slot: Slot
    ready_file: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    failed_starts: int = 0
    was_ever_ready: bool = False
    is_disturbed: bool = False
    """A neighbour on its GPU ended while it started, which spoils vLLM's measuring of memory."""
    restart_at: float | None = 0.0
    """When it is due to start; None: it has started."""

    @property
    def is_starting(self) -> bool:
        """It runs, and does not take jobs yet."""
        return self.process is not None and not self.is_ready

    @property
    def is_ready(self) -> bool:
        """The process has written that it takes jobs."""
        return os.path.exists(self.ready_file)  # noqa: PTH110 - one stat, ten times a second


@dataclass
class Supervisor:
    """See the module. ``run`` returns the exit code of the whole."""

    command: Sequence[str]
    """The worker process; ``--slot N`` and ``--ready-file F`` are appended."""
    slots: Sequence[Slot]
    policy: RestartPolicy
    drain_timeout_seconds: float
    environ: Mapping[str, str]
    run_folder: str
    output: Output | None = None
    """Where what the workers print goes; None: where this process prints."""
    _children: list[Child] = field(default_factory=list, init=False)
    _signals: int = field(default=0, init=False)
    _is_hurried: bool = field(default=False, init=False)
    _exit_code: int = field(default=0, init=False)
    _has_told_ready: bool = field(default=False, init=False)

    def run(self) -> int:
        """Keep the workers running until SIGTERM, SIGINT or SIGQUIT, or until one cannot be started.

        The first asks running jobs to be finished within the drain budget; SIGQUIT, or a second signal, gives them back
        to the queue at once.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        self._children = [Child(slot, f"{self.run_folder}/ready-{slot.index}") for slot in self.slots]
        while not self._signals:
            for child in self._children:
                self._look_after(child)
            self._tell_when_all_are_ready()
            time.sleep(POLL_SECONDS)
        self._stop_all()
        if self.output is not None:
            self.output.close()
        return self._exit_code

    def _tell_when_all_are_ready(self) -> None:
        """Once: engines that share a GPU start one after another, so the first may work long before the last."""
        if not self._has_told_ready and all(child.is_ready for child in self._children):
            self._has_told_ready = True
            log.info("%s (%d)", ALL_READY, len(self._children), extra={"action": "workers_ready"})

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._is_hurried = self._is_hurried or number == signal.SIGQUIT or self._signals > 0
        self._signals += 1

    def _start(self, child: Child) -> None:
        self._forget_ready(child)
        arguments = ["--slot", str(child.slot.index), "--ready-file", child.ready_file]
        with self.output.pipe(f"worker-{child.slot.index}") if self.output else contextlib.nullcontext() as printing:
            child.process = subprocess.Popen(  # noqa: S603 - our own command
                [*self.command, *arguments, *child.slot.arguments(), *parent_arguments()],
                env=child.slot.environment(self.environ),
                stdout=printing,
                stderr=printing,
                start_new_session=True,  # its EngineCore shares the group: killing that leaves nothing on the GPU
            )
        child.started_at, child.restart_at, child.is_disturbed = time.monotonic(), None, False
        log.info(
            "worker %d started as process %d on %s",
            child.slot.index,
            child.process.pid,
            child.slot.place_name,
            extra={"action": "worker_started", "worker_pid": child.process.pid},
        )

    def _look_after(self, child: Child) -> None:
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at and not any(self._starting_beside(child)):
                self._start(child)
            return
        if child.process is None:
            return
        child.was_ever_ready = child.was_ever_ready or child.is_ready
        exit_code = child.process.poll()
        if exit_code is not None:
            self._on_exit(child, exit_code)

    def _starting_beside(self, child: Child) -> Iterator[Child]:
        """Who starts on the same GPU now.

        An engine measures how much memory it takes by what is free before and after: what a neighbour takes meanwhile
        would be missing from its KV cache, so engines of one GPU start one after another.
        """
        for other in self._children:
            if other is not child and other.is_starting and other.slot.shares_gpu_with(child.slot):
                yield other

    def _on_exit(self, child: Child, exit_code: int) -> None:
        was_ready = child.is_ready
        child.was_ever_ready = child.was_ever_ready or was_ready  # it may have been ready for less than a poll
        if time.monotonic() - child.started_at > HEALTHY_AFTER_SECONDS and was_ready:
            child.failures = 0
        child.failures += 1
        child.failed_starts = 0 if was_ready else child.failed_starts + 1
        self._kill_group(child)
        for neighbour in self._starting_beside(child):
            neighbour.is_disturbed = True
        if self._is_hopeless(child, exit_code):
            log.error(
                "worker %d ended with %d before it was ready; not starting it again",
                child.slot.index,
                exit_code,
                extra={"action": "worker_given_up", "exit_code": exit_code},
            )
            self._exit_code, self._signals = exit_code if exit_code > 0 else 1, self._signals + 1
            return
        delay_seconds = self.policy.delay_seconds(child.failures)
        child.restart_at = time.monotonic() + delay_seconds
        log.warning(
            "worker %d ended with %d; restart in %.1f s",
            child.slot.index,
            exit_code,
            delay_seconds,
            extra={"action": "worker_restarts", "exit_code": exit_code},
        )

    def _is_hopeless(self, child: Child, exit_code: int) -> bool:
        never_worked = not child.was_ever_ready and not child.is_disturbed
        too_often = child.failed_starts >= self.policy.max_failed_starts
        return exit_code == EXIT_CONFIGURATION or never_worked or too_often

    def _stop_all(self) -> None:
        if not self._is_hurried:
            self._tell_all(signal.SIGTERM)
            deadline = time.monotonic() + self.drain_timeout_seconds + STOP_GRACE_SECONDS
            while self._living() and time.monotonic() < deadline and not self._is_hurried:
                time.sleep(POLL_SECONDS)
        if self._is_hurried:
            self._tell_all(signal.SIGQUIT)
            deadline = time.monotonic() + STOP_GRACE_SECONDS
            while self._living() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        for child in self._children:
            self._kill_group(child)
            self._forget_ready(child)

    def _living(self) -> bool:
        return any(child.process is not None and child.process.poll() is None for child in self._children)

    def _tell_all(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _kill_group(self, child: Child) -> None:
        """End what is left of the worker's process group: a hung worker, or an EngineCore that outlived it."""
        if child.process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # nothing is left of it
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        child.process = None

    @staticmethod
    def _forget_ready(child: Child) -> None:
        if child.is_ready:
            os.unlink(child.ready_file)  # noqa: PTH108 - beside os.path.exists


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command line of a worker process with these arguments."""
    return [sys.executable, "-m", "workers.process", *arguments]
