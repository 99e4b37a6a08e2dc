"""Engines that share a GPU tell each other that a first token is owed: two numbers in a file that they map.

The interactive engine writes, the others read it between two of their steps (:mod:`workers.engine.vllm_scheduler`). One
file per interactive engine, so each has one writer; both numbers are seconds of ``CLOCK_MONOTONIC``, which all
processes of a machine have in common. What is written counts for :data:`COUNTS_SECONDS`, so that a writer that was
killed holds nobody up.
"""

import mmap
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COUNTS_SECONDS: Final = 0.1
LATELY_SECONDS: Final = 2.0
"""So long after a first token was owed, the next one is expected."""
MAX_WAIT_SECONDS: Final = 0.05
"""Before one step, however long first tokens are owed: who yields goes on with a step in at most so much and a step."""
PAUSE_SECONDS: Final = 0.0002
"""Between two looks of who waits."""

_OWED_UNTIL: Final = 0
_LAST_OWED: Final = 8
_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """What an engine has to do with first tokens beside it."""

    announced_in: Path | None = None
    """Where it writes that it owes some; None: nobody yields to it."""
    yielded_to: tuple[Path, ...] = ()
    """Where the engines write that it yields to."""


ALONE: Final = FirstTokens()


def create(path: Path) -> None:
    """The file, with nothing owed."""
    path.write_bytes(bytes(_SIZE))


class Announcement:
    """What the engine that owes first tokens writes.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._shared = _mapped(path)

    def owe(self) -> None:
        """A first token is owed, now and for :data:`COUNTS_SECONDS`."""
        now = time.monotonic()
        struct.pack_into("d", self._shared, _LAST_OWED, now)
        struct.pack_into("d", self._shared, _OWED_UNTIL, now + COUNTS_SECONDS)

    def settle(self) -> None:
        """None is owed any more."""
        struct.pack_into("d", self._shared, _OWED_UNTIL, 0.0)


class Yielding:
    """What the engines beside it read.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shared = [_mapped(path) for path in paths]

    def wait(self) -> float:
        """Until no first token is owed, :data:`MAX_WAIT_SECONDS` at most; the seconds that it took."""
        began = now = time.monotonic()
        while now < self._greatest(_OWED_UNTIL) and now - began < MAX_WAIT_SECONDS:
            time.sleep(PAUSE_SECONDS)
            now = time.monotonic()
        return now - began

    @property
    def was_lately(self) -> bool:
        """Whether a first token was owed in the last :data:`LATELY_SECONDS`."""
        return time.monotonic() - self.last_owed < LATELY_SECONDS

    @property
    def last_owed(self) -> float:
        """When that was; 0: never."""
        return self._greatest(_LAST_OWED)

    def _greatest(self, place: int) -> float:
        return max(float(struct.unpack_from("d", shared, place)[0]) for shared in self._shared)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _SIZE)
