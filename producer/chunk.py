"""What goes to Redis in one run of the enqueue script. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from producer.errors import QueueFull
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


Queue = tuple[str, str | None]
"""What may be full: a model's queue (None), or a tenant's part of it."""


class Backlog:
    """Jobs that found their queue full, by what was full, in the order of their requests.

    How many of one are sent again at once halves when one is refused and doubles when none is, so that a full queue is
    asked with little.
    """

    def __init__(self) -> None:
        self._held: dict[Queue, list[IndexedJob]] = {}
        self._allowance: dict[Queue, int] = {}
        self._asked: list[Queue] = []

    def hold(self, job: IndexedJob) -> bool:
        """Keep the job behind those that wait for the same room; False when none does, so that it may be sent."""
        request = job.prepared.request
        for queue in ((request.model, request.tenant), (request.model, None)):
            if queue in self._held:
                self._held[queue].append(job)
                return True
        return False

    def due(self) -> list[IndexedJob]:
        """What to send again now: the first of each queue. They are held no more."""
        due: list[IndexedJob] = []
        self._asked = []
        for queue, held in list(self._held.items()):
            count = min(len(held), self._allowance[queue], BACKLOG_JOBS - len(due))
            if not count:
                break
            due += held[:count]
            del held[:count]
            self._asked.append(queue)
            # Who was asked comes last the next time, or many full ones would keep out those behind them.
            self._held[queue] = self._held.pop(queue)
        return due

    def settle(self, refused: Iterable[tuple[IndexedJob, QueueFull]]) -> None:
        """Take back what found its queue full, of the jobs that were sent."""
        full: dict[Queue, list[IndexedJob]] = {}
        for job, error in refused:
            full.setdefault((error.model, error.tenant), []).append(job)
        for queue, jobs in full.items():
            self._held[queue] = sorted([*jobs, *self._held.get(queue, ())], key=_index)
            self._allowance[queue] = max(1, self._allowance.get(queue, 1) // 2)
        for queue in self._asked:
            if queue not in full:
                self._allowance[queue] *= 2
                if not self._held[queue]:
                    del self._held[queue], self._allowance[queue]
        self._asked = []


def _index(job: IndexedJob) -> int:
    return job.index
