"""Lets requests into a full engine in groups.

A step that begins a prompt costs more of an engine's time than one that only continues answers: vLLM runs the latter
as one CUDA graph and the former piece by piece, launching each kernel from Python. Where every ended answer is replaced
at once, more than half of all steps are of the dear kind; in groups it is one in ten (docs/engines-per-gpu.md).
"""

import asyncio
from dataclasses import dataclass
from typing import Final

SEQUENCES_PER_GROUP: Final = 8
"""Unless told otherwise a group is one in so many of the engine's sequences: half a group is empty on average, 6 %."""
SMALLEST_SHARE: Final = 4
"""No group is more than one in so many of the sequences."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request waits for others to begin with."""

    seconds: float = 0.0
    """0: not at all."""
    jobs: int | None = None
    """Content with so many, itself included, where that is fewer than the engine's group."""


NO_PATIENCE: Final = Patience()


def group_jobs(asked: int, max_num_seqs: int) -> int:
    """Requests in a group: as many as asked for, 0 being the engine's choice, within what so many sequences allow."""
    return max(1, min(asked or max_num_seqs // SEQUENCES_PER_GROUP, max_num_seqs // SMALLEST_SHARE))


class Entrance:
    """Where patient requests wait for each other. One event loop only."""

    def __init__(self, group: int) -> None:
        self.group = group
        """Requests that enter together; 1: nobody waits."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, patience: Patience) -> None:
        """Wait until the group is complete, or this one content, or the patience of the first of them is over.

        Without patience: enter now, and everybody who waits comes along, since a prompt is begun in any case.
        """
        group = self.group if patience.jobs is None else min(self.group, patience.jobs)
        if patience.seconds <= 0 or len(self._waiting) + 1 >= group:
            self.open()
            return
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(patience.seconds, self.open)
        turn = loop.create_future()
        self._waiting.add(turn)
        try:
            await turn
        finally:
            self._waiting.discard(turn)

    def open(self) -> None:
        """Let everybody in who waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()
