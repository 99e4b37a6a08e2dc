"""What goes to Redis in one run of the enqueue script. No I/O."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from producer.submission import PreparedJob

CHUNK_JOBS: Final = 200
"""Most jobs that one run of the enqueue script submits. They keep the server busy for 3 ms, and nobody else is served
meanwhile; more at once cost no less each (ARCHITECTURE.md)."""
RICH_JOB: Final = 3
"""A job with a tenant, a deadline, a prefix or an idempotency key counts as so many: it takes the server as long."""
BACKLOG_JOBS: Final = CHUNK_JOBS // RICH_JOB
"""Most jobs that are sent at once of those that found their queue full."""
CHUNK_BYTES: Final = 1024 * 1024
"""Jobs that hold this much are sent, however few they are."""
PULL_SECONDS: Final = 0.05
"""A slow iterable is not waited for longer than this before what it gave is submitted."""


@dataclass(frozen=True, slots=True)
class IndexedJob:
    """A prepared job and the position of its request."""

    index: int
    prepared: PreparedJob


class Chunk:
    """Jobs that are sent together."""

    def __init__(self, jobs: Iterable[IndexedJob] = ()) -> None:
        self.jobs: list[IndexedJob] = []
        self._load = 0
        self._size_bytes = 0
        self._stop_at = monotonic() + PULL_SECONDS
        for job in jobs:
            self.add(job)

    def add(self, job: IndexedJob) -> None:
        """One more, whatever its size."""
        self.jobs.append(job)
        self._load += RICH_JOB if job.prepared.options else 1
        self._size_bytes += job.prepared.size_bytes

    @property
    def prepared(self) -> list[PreparedJob]:
        """What the enqueue script takes."""
        return [job.prepared for job in self.jobs]

    @property
    def seconds_left(self) -> float:
        """How long to wait for more; 0 when it is time to send."""
        if self._load >= CHUNK_JOBS or self._size_bytes >= CHUNK_BYTES:
            return 0.0
        return max(0.0, self._stop_at - monotonic())


class Backlog:
    """Jobs that found their queue full, by model, in the order of their requests.

    How many of a model's are sent again at once halves when one is refused and doubles when none is, so that a full
    queue is asked with little.
    """

    def __init__(self) -> None:
        self._held: dict[str, deque[IndexedJob]] = {}
        self._allowance: dict[str, int] = {}

    def hold(self, job: IndexedJob) -> bool:
        """Keep the job behind those of its model that wait for room; False when none does, so that it may be sent."""
        held = self._held.get(job.prepared.request.model)
        if held is None:
            return False
        held.append(job)
        return True

    def due(self) -> list[IndexedJob]:
        """What to send again now: the first of each model. They are held no more."""
        due: list[IndexedJob] = []
        for model, held in self._held.items():
            count = min(len(held), self._allowance[model], BACKLOG_JOBS - len(due))
            due += [held.popleft() for _ in range(count)]
        return due

    def settle(self, sent: Iterable[IndexedJob], refused: Iterable[IndexedJob]) -> None:
        """Take back what found its queue full, of the jobs that were sent."""
        by_model: dict[str, list[IndexedJob]] = {}
        for job in refused:
            by_model.setdefault(job.prepared.request.model, []).append(job)
        for model, jobs in by_model.items():
            self._held.setdefault(model, deque()).extendleft(reversed(jobs))
            self._allowance[model] = max(1, self._allowance.get(model, 1) // 2)
        for model in {job.prepared.request.model for job in sent} - by_model.keys():
            if model in self._held:
                self._allowance[model] *= 2
                if not self._held[model]:
                    del self._held[model], self._allowance[model]
