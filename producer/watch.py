"""Which of the jobs that are out to look at next, and when. No I/O.

Jobs of one lane end nearly in the order in which they were submitted, so the oldest are looked at each time, and all
others in turn, every :data:`SWEEP_SECONDS`; thousands more slowly.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Any, Final

import orjson

from producer import keys
from producer.script import Script, ScriptRun

LOOK_SCRIPT: Final = Script.named("look")

POLL_KEYS: Final = 500
"""Most results that one command asks for."""
FRONT_JOBS: Final = 64
"""How many of the oldest jobs to look at each time; twice what the last look found, when that is more."""
SWEEP_SECONDS: Final = 0.5
"""Every job is looked at about this often, or as often as :data:`SWEEP_JOBS_PER_SECOND` allows."""
SWEEP_JOBS_PER_SECOND: Final = 10_000
PATIENT_JOBS_PER_SECOND: Final = 2_500
"""As :data:`SWEEP_JOBS_PER_SECOND`, where one caller waits for all of them."""
PATIENT_JOBS_PER_END: Final = 4
"""So many more for each job that ends: what a sweep costs is bounded by what it is for."""
SHORTEST_POLL_SECONDS: Final = 0.01
"""Pause after news, for a few jobs; a crowd is looked at in larger portions."""
CROWD_POLL_SECONDS: Final = 0.1
CROWD_JOBS: Final = 4_000
LONGEST_POLL_SECONDS: Final = 0.25
PRESENCE_SECONDS: Final = 5.0
"""How often jobs are looked for that Redis has lost."""


class PollSchedule:
    """When to look next: often while outcomes come in, less often while none do."""

    def __init__(self, *, presence_seconds: float = PRESENCE_SECONDS) -> None:
        self._pause_seconds = SHORTEST_POLL_SECONDS
        self._presence_due_at = monotonic() + presence_seconds

    def pause_seconds(self, *, progress: bool, waiting_jobs: int = 0) -> float:
        """How long to pause, given whether the last look brought an outcome, and how many are still waited for."""
        crowd_pause_seconds = CROWD_POLL_SECONDS * min(1.0, waiting_jobs / CROWD_JOBS)
        if progress:
            self._pause_seconds = SHORTEST_POLL_SECONDS
        pause_seconds = max(self._pause_seconds, crowd_pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 1.5, LONGEST_POLL_SECONDS)
        return pause_seconds

    def presence_is_due(self) -> bool:
        """Whether this look should also find jobs that Redis has lost."""
        now = monotonic()
        if now < self._presence_due_at:
            return False
        self._presence_due_at = now + PRESENCE_SECONDS
        return True


class Watch:
    """The jobs that are out, each with the positions of the requests that it answers.

    A patient one sweeps thousands of jobs more slowly, the fewer of them end.
    """

    def __init__(self, *, is_patient: bool = False) -> None:
        self._is_patient = is_patient
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
        """All ids, in slices for one command each."""
        return sliced(list(self._positions))

    def next_look(self) -> list[list[str]]:
        """The ids to look at now, in slices for one command each."""
        now = monotonic()
        elapsed_seconds, self._looked_at = now - self._looked_at, now
        ended, self._settled = self._settled, 0
        self._front_jobs = max(FRONT_JOBS, 2 * ended)
        front = dict.fromkeys(islice(self._positions, self._front_jobs))
        whole = len(self._positions) * min(1.0, elapsed_seconds / SWEEP_SECONDS)
        most = elapsed_seconds * SWEEP_JOBS_PER_SECOND
        if self._is_patient:
            most = min(most, elapsed_seconds * PATIENT_JOBS_PER_SECOND + PATIENT_JOBS_PER_END * ended)
        front.update(dict.fromkeys(self._next_in_turn(round(min(whole, most)))))
        return sliced(list(front))

    def _next_in_turn(self, count: int) -> Iterable[str]:
        taken = [job_id for job_id in islice(self._turn, count) if job_id in self._positions]
        if count and not taken:
            self._turn = iter(list(self._positions))
            taken = list(islice(self._turn, count))
        return taken


def sliced(ids: Sequence[str]) -> list[list[str]]:
    """In portions for one command each."""
    return [list(ids[start : start + POLL_KEYS]) for start in range(0, len(ids), POLL_KEYS)]


def look_run(job_ids: Sequence[str]) -> ScriptRun:
    """The script run that finds which of these results are there; at most :data:`POLL_KEYS`, so that Lua takes them."""
    # As one argument: to encode and send hundreds of them is most of what a look would cost.
    return ScriptRun(LOOK_SCRIPT, (), (keys.result(""), orjson.dumps(job_ids)))


def found_results(job_ids: Sequence[str], reply: Sequence[Any]) -> dict[str, bytes]:
    """What that run found, by job id."""
    return {job_ids[place - 1]: stored for place, stored in zip(reply[::2], reply[1::2], strict=True)}
