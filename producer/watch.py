"""Which of the jobs that are out to look at next, and when. No I/O.

Jobs of one lane end nearly in the order in which they were submitted, so the oldest are looked at each time, and all
others in turn, every :data:`SWEEP_SECONDS`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Final

POLL_KEYS: Final = 500
"""Most results that one MGET asks for."""
FRONT_JOBS: Final = 64
"""How many of the oldest jobs to look at each time; twice what the last look found, when that is more."""
SWEEP_SECONDS: Final = 0.5
"""Every job is looked at about this often."""
SHORTEST_POLL_SECONDS: Final = 0.01
LONGEST_POLL_SECONDS: Final = 0.25
PRESENCE_SECONDS: Final = 5.0
"""How often jobs are looked for that Redis has lost."""


class PollSchedule:
    """When to look next: often while outcomes come in, less often while none do."""

    def __init__(self, *, presence_seconds: float = PRESENCE_SECONDS) -> None:
        self._pause_seconds = SHORTEST_POLL_SECONDS
        self._presence_due_at = monotonic() + presence_seconds

    def pause_seconds(self, *, progress: bool) -> float:
        """How long to pause, given whether the last look brought an outcome."""
        if progress:
            self._pause_seconds = SHORTEST_POLL_SECONDS
        pause_seconds = self._pause_seconds
        self._pause_seconds = min(pause_seconds * 1.5, LONGEST_POLL_SECONDS)
        return pause_seconds

    def presence_is_due(self) -> bool:
        """Whether this look should also find jobs that Redis has lost."""
        now = monotonic()
        if now < self._presence_due_at:
            return False
        self._presence_due_at = now + PRESENCE_SECONDS
        return True


class Watch:
    """The jobs that are out, each with the positions of the requests that it answers."""

    def __init__(self) -> None:
        self._positions: defaultdict[str, list[int]] = defaultdict(list)
        self._front_jobs = FRONT_JOBS
        self._settled = 0
        self._turn: Iterator[str] = iter(())
        self._looked_at = monotonic()

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, job_id: str, position: int) -> None:
        """Watch a job; requests with one idempotency key are one job."""
        self._positions[job_id].append(position)

    def settle(self, job_id: str) -> list[int]:
        """Watch it no more: the positions that it answers; none when it was settled before."""
        positions = self._positions.pop(job_id, [])
        self._settled += bool(positions)
        return positions

    def everything(self) -> list[list[str]]:
        """All ids, in slices for one MGET each."""
        return _sliced(list(self._positions))

    def next_look(self) -> list[list[str]]:
        """The ids to look at now, in slices for one MGET each."""
        now = monotonic()
        elapsed_seconds, self._looked_at = now - self._looked_at, now
        self._front_jobs, self._settled = max(FRONT_JOBS, 2 * self._settled), 0
        front = dict.fromkeys(islice(self._positions, self._front_jobs))
        share = min(1.0, elapsed_seconds / SWEEP_SECONDS)
        front.update(dict.fromkeys(self._next_in_turn(round(share * len(self._positions)))))
        return _sliced(list(front))

    def _next_in_turn(self, count: int) -> Iterable[str]:
        taken = [job_id for job_id in islice(self._turn, count) if job_id in self._positions]
        if count and not taken:
            self._turn = iter(list(self._positions))
            taken = list(islice(self._turn, count))
        return taken


def _sliced(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + POLL_KEYS]) for start in range(0, len(ids), POLL_KEYS)]
