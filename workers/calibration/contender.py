"""One engine that takes part in a calibration: a process of its own, as in service, driven line by line."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import TypeAdapter, ValidationError

from workers.calibration.load import Phase
from workers.output import Output
from workers.parent import parent_arguments
from workers.placement import Slot

STOP_SECONDS: Final = 30.0
"""For an engine that was asked to end; then its processes are killed."""
GONE_SECONDS: Final = 10.0
"""For killed processes to give their memory back."""
POLL_SECONDS: Final = 0.05


class DoesNotStart(Exception):
    """This engine did not come up; the message is the cause in one line."""


class DoesNotAnswer(Exception):
    """This engine failed under the load; the message is the cause in one line."""


class WrongSettings(DoesNotStart):
    """It never will: an option is unknown or refused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """What a started engine says of itself."""

    max_num_seqs: int
    max_model_len: int
    kv_cache_tokens: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why it did not start, or failed under the load."""

    failure: str
    is_final: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """What it made in a phase."""

    tokens_per_second: float


Answer = Ready | Failure | Speed
ANSWERS: Final[TypeAdapter[Answer]] = TypeAdapter(Answer)


class Contender:
    """The process of one slot; starts at once."""

    def __init__(
        self, command: Sequence[str], slot: Slot, environ: Mapping[str, str], output: Output | None = None
    ) -> None:
        with output.pipe(f"engine-{slot.index}") if output else contextlib.nullcontext() as printing:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, *slot.arguments(), *parent_arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printing,
                env=slot.environment(environ),
                start_new_session=True,  # its EngineCore shares the group: killing that leaves nothing on the GPU
                text=True,
            )
        self._is_waiting = False
        """It owes no answer, so it will see that its input ends."""

    def ready(self) -> Ready:
        """Wait until it would serve.

        Raises:
            DoesNotStart: it will not.
        """
        match self._answer():
            case Ready() as ready:
                return ready
            case Failure(sentence, is_final=True):
                raise WrongSettings(sentence)
            case other:
                raise DoesNotStart(_sentence(other))

    def begin(self, phase: Phase) -> None:
        """Order a phase."""
        self._is_waiting = False
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        with contextlib.suppress(BrokenPipeError):  # it is gone, and has no answer
            self._process.stdin.write(json.dumps(dataclasses.asdict(phase)) + "\n")
            self._process.stdin.flush()

    def tokens_per_second(self) -> float:
        """Wait for the end of the phase, and for what it made.

        Raises:
            DoesNotAnswer: it failed.
        """
        match self._answer():
            case Speed(tokens_per_second):
                return tokens_per_second
            case other:
                raise DoesNotAnswer(_sentence(other))

    def _answer(self) -> Answer | None:
        assert self._process.stdout is not None  # noqa: S101 - opened with PIPE
        line = self._process.stdout.readline()
        self._is_waiting = bool(line)
        try:
            return ANSWERS.validate_json(line) if line else None
        except ValidationError:
            return None

    def stop(self) -> None:
        """End it, and what it started; returns when they are gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self._is_waiting:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + GONE_SECONDS
        with contextlib.suppress(ProcessLookupError):  # nothing is left of the group
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(POLL_SECONDS)


def _sentence(answer: Answer | None) -> str:
    return answer.failure if isinstance(answer, Failure) else "its process ended without a word; its log says more"


def contender_command(arguments: Sequence[str]) -> list[str]:
    """The command line of a contender's process with these arguments."""
    return [sys.executable, "-m", "workers.calibrating", *arguments]
