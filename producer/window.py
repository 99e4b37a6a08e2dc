"""The bookkeeping of ``map``: which jobs are out, which outcomes may be handed over, how much room is left. No I/O."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from producer.contract import Failure
from producer.errors import InvalidRequest
from producer.jobs import JobOutcome, Submission
from producer.outcome import Outcome, lost_job, read_outcome
from producer.submission import PreparedJob, Refusal, RequestLike, as_request, prepare

CHUNK_JOBS: Final = 100
"""Most jobs that one run of the enqueue script submits."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Jobs that hold this much are sent, however few they are."""
PULL_SECONDS: Final = 0.05
"""A slow iterable is not waited for longer than this before what it gave is submitted."""
POLL_KEYS: Final = 500
"""Most results that one MGET asks for."""
SHORTEST_POLL_SECONDS: Final = 0.01
LONGEST_POLL_SECONDS: Final = 0.25
PRESENCE_SECONDS: Final = 5.0
"""How often jobs are looked for that Redis has lost."""


class PollSchedule:
    """When to look next: often while outcomes come in, less often while none do."""

    def __init__(self) -> None:
        self._pause_seconds = SHORTEST_POLL_SECONDS
        self._presence_due_at = monotonic() + PRESENCE_SECONDS

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


@dataclass(frozen=True, slots=True)
class IndexedJob:
    """A prepared job and the position of its request."""

    index: int
    prepared: PreparedJob


class Window:
    """At most ``size`` requests that were taken and not yet handed over as outcomes."""

    def __init__(self, size: int, *, in_order: bool) -> None:
        if size < 1:
            raise InvalidRequest("window: at least 1 job")
        self._size = size
        self._in_order = in_order
        self._taken = 0
        self._handed_over = 0
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)
        self._ready: dict[int, JobOutcome] = {}

    @property
    def room(self) -> int:
        """How many more requests may be taken now."""
        return self._size - (self._taken - self._handed_over)

    @property
    def is_empty(self) -> bool:
        """Whether everything taken was handed over."""
        return self._taken == self._handed_over

    def take(self, request: RequestLike) -> IndexedJob | None:
        """Give the next request its index; None when it is refused, which is its outcome."""
        index, self._taken = self._taken, self._taken + 1
        try:
            return IndexedJob(index, prepare(as_request(request)))
        except InvalidRequest as error:
            self._refuse(index, error)
            return None

    def submitted(self, jobs: Iterable[IndexedJob], found: Iterable[Submission | Refusal]) -> None:
        """Note what became of each."""
        for job, became in zip(jobs, found, strict=True):
            if isinstance(became, Submission):
                self._waiting[became.job_id].append(job.index)
            else:
                self._refuse(job.index, became)

    def waiting(self) -> list[list[str]]:
        """The ids of the jobs that are out, in slices for one MGET each."""
        ids = list(self._waiting)
        return [ids[start : start + POLL_KEYS] for start in range(0, len(ids), POLL_KEYS)]

    def seen(self, job_ids: Sequence[str], metas: Sequence[bytes | None]) -> None:
        """Note what an MGET of their results gave."""
        for job_id, meta in zip(job_ids, metas, strict=True):
            outcome = read_outcome(meta)
            if outcome is not None:
                self._settle(job_id, outcome)

    def present(self, job_ids: Sequence[str], records: Sequence[bool], metas: Sequence[bytes | None]) -> None:
        """Note their results, and settle those that have neither a record nor, looked for afterwards, a result."""
        self.seen(job_ids, metas)
        for job_id, has_record, meta in zip(job_ids, records, metas, strict=True):
            if not has_record and meta is None:
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
        for index in self._waiting.pop(job_id):
            self._ready[index] = JobOutcome(index, job_id, result, failure)

    def _refuse(self, index: int, error: Refusal) -> None:
        self._ready[index] = JobOutcome(index, None, failure=Failure(code=error.code, message=str(error)))
