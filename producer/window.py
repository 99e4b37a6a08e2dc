"""The bookkeeping of ``map`` and ``results``: which jobs are out, which outcomes may be handed over. No I/O."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from producer.chunk import Backlog, Chunk, IndexedJob
from producer.contract import Failure
from producer.errors import InvalidRequest, QueueFull
from producer.jobs import JobOutcome, Submission
from producer.outcome import Outcome, lost_job, read_outcome
from producer.submission import Refusal, Submittable, as_job
from producer.watch import Watch

REFILLS: Final = 16
"""A window that is full is refilled in portions of this part of it: jobs that are submitted one by one cost more."""


class Window:
    """At most ``size`` requests that were taken and not yet handed over as outcomes."""

    def __init__(self, size: int, *, in_order: bool) -> None:
        if size < 1:
            raise InvalidRequest("window: at least 1 job")
        self._size = size
        self._in_order = in_order
        self._taken = 0
        self._handed_over = 0
        self._backlog = Backlog()
        self._ready: dict[int, JobOutcome] = {}
        self.watch = Watch(is_patient=True)

    @classmethod
    def over(cls, job_ids: Sequence[str], *, in_order: bool) -> "Window":
        """A window over jobs that were submitted before."""
        window = cls(max(1, len(job_ids)), in_order=in_order)
        for job_id in job_ids:
            window.watch.add(job_id, window._next_index())
        return window

    @property
    def room(self) -> int:
        """How many more requests may be taken now."""
        return self._size - self.open_jobs

    @property
    def wants_more(self) -> bool:
        """Whether there is room for as many as are worth a call of their own."""
        return self.room >= max(1, self._size // REFILLS)

    @property
    def open_jobs(self) -> int:
        """How many were taken and not handed over."""
        return self._taken - self._handed_over

    @property
    def is_empty(self) -> bool:
        """Whether everything taken was handed over."""
        return not self.open_jobs

    def start_chunk(self) -> Chunk:
        """What to send next; it begins with jobs that found their queue full."""
        return Chunk(self._backlog.due())

    def take(self, request: Submittable, chunk: Chunk) -> None:
        """Give the next request its index and put it into the chunk.

        One that is refused has its outcome; one whose queue is full waits behind those that wait for room there.
        """
        index = self._next_index()
        try:
            job = IndexedJob(index, as_job(request))
        except InvalidRequest as error:
            self._refuse(index, error)
            return
        if not self._backlog.hold(job):
            chunk.add(job)

    def _next_index(self) -> int:
        index, self._taken = self._taken, self._taken + 1
        return index

    def submitted(self, jobs: Sequence[IndexedJob], found: Iterable[Submission | Refusal]) -> None:
        """Note what became of each."""
        full: list[tuple[IndexedJob, QueueFull]] = []
        for job, became in zip(jobs, found, strict=True):
            if isinstance(became, Submission):
                self.watch.add(became.job_id, job.index)
            elif isinstance(became, QueueFull):
                full.append((job, became))
            else:
                self._refuse(job.index, became)
        self._backlog.settle(full)

    def seen(self, stored: Mapping[str, bytes]) -> None:
        """Note results that are there, by job id."""
        for job_id, meta in stored.items():
            if (outcome := read_outcome(meta)) is not None:
                self._settle(job_id, outcome)

    def gone(self, without_record: Collection[str], stored: Mapping[str, bytes]) -> None:
        """Settle the jobs that had no record and, looked for afterwards, no result either: nobody knows them."""
        for job_id in without_record:
            if job_id not in stored:
                self._settle(job_id, lost_job(job_id))

    def hand_over(self) -> Iterator[JobOutcome]:
        """The outcomes that may go to the caller now; each leaves room for one more request."""
        while self._ready and (outcome := self._next_ready()) is not None:
            self._handed_over += 1
            yield outcome

    def _next_ready(self) -> JobOutcome | None:
        return self._ready.pop(self._handed_over if self._in_order else next(iter(self._ready)), None)

    def _settle(self, job_id: str, outcome: Outcome) -> None:
        failure = outcome if isinstance(outcome, Failure) else None
        result = None if isinstance(outcome, Failure) else outcome
        # Requests with one idempotency key are one job, and each of them gets its outcome.
        for index in self.watch.settle(job_id):
            self._ready[index] = JobOutcome(index, job_id, result, failure)

    def _refuse(self, index: int, error: Refusal) -> None:
        self._ready[index] = JobOutcome(index, None, failure=Failure(code=error.code, message=str(error)))
