"""When jobs are to begin together: policy for :class:`workers.engine.entrance.Entrance`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workers.engine.entrance import NO_PATIENCE, SEQUENCES_PER_GROUP, Patience

SATURATED_SECONDS: Final = 1.0
"""Since a job had to wait for a seat: so long the engine counts as having more work than it can begin."""
URGENT_SECONDS: Final = 10.0
"""Since a job of the most urgent lane began: so long no group is formed, whose one long step the next would meet."""


def never() -> bool:
    """Where memory is not what limits."""
    return False


@dataclass(frozen=True, slots=True)
class Refill:
    """How a full engine gets its next jobs."""

    jobs: int = 1
    """Jobs that had best begin together in an engine that is nearly full."""
    max_wait_seconds: float = 0.0
    """How long the first of them waits for the others."""
    is_memory_full: Callable[[], bool] = never
    """Whether jobs are left in the queue since the engine has no memory for them; asked on the engine's loop."""


NO_GROUPS: Final = Refill()


class Grouping:
    """Whether the job that begins now waits for others. One event loop only."""

    def __init__(self, refill: Refill, seats: int, clock: Callable[[], float]) -> None:
        self._refill = refill
        self._seats = seats
        """For every lane."""
        self._clock = clock
        self._saturated_until = 0.0
        self._calm_from = 0.0

    def saw(self, running: int, waiting: int) -> None:
        """So many jobs run, and so many wait in this process."""
        if running + waiting > self._seats:  # somebody waits for a seat, or just did
            self._saturated_until = self._clock() + SATURATED_SECONDS

    def patience(self, queue_priority: int, running: int) -> Patience:
        """Of a job that begins beside so many others.

        Those of the most urgent lane have none, nor has anybody shortly after one of those; neither while the engine
        has more free seats than a group takes and memory for what is next, nor while each job finds a free seat when
        it comes: where nobody waits for a seat or for memory, waiting gains nothing.
        """
        now, refill = self._clock(), self._refill
        if not queue_priority:
            self._calm_from = now + URGENT_SECONDS
        if now < self._calm_from or refill.jobs <= 1:
            return NO_PATIENCE
        if running + refill.jobs >= self._seats and now < self._saturated_until:
            return Patience(refill.max_wait_seconds)
        if refill.is_memory_full():
            # A group that is large for what there is memory for would leave much of it empty.
            return Patience(refill.max_wait_seconds, max(1, (running + 1) // SEQUENCES_PER_GROUP))
        return NO_PATIENCE
