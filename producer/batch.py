"""The bookkeeping of ``submit_many``: what was taken, what became of it, and what is not known. No I/O."""

from collections.abc import Iterable

from producer.chunk import Chunk, IndexedJob
from producer.errors import InvalidRequest, SubmitFailed
from producer.jobs import Submission, SubmitOutcome
from producer.submission import Refusal, Submittable, as_job


class BatchSubmitFailed(SubmitFailed):
    """Redis could not be reached, or refused, while many jobs were submitted; ``outcomes`` and ``unsettled`` say which.

    Give ``unsettled`` to ``submit_many`` again, followed by what the iterable still holds: they are the same jobs, and
    none of them is queued twice.
    """

    def __init__(self, trouble: str, outcomes: list[SubmitOutcome], unsettled: list[Submittable]) -> None:
        self.trouble = trouble
        self.outcomes = outcomes
        """What is certain, in the order of the requests, from the first one on."""
        self.unsettled = unsettled
        """The requests that were taken after those: each is queued whole or not at all, and nobody can say which."""
        queued = sum(outcome.submission is not None for outcome in outcomes)
        super().__init__(
            f"{trouble}. {len(outcomes):,} requests are settled, {queued:,} of them queued; {len(unsettled):,} more "
            "are queued or not, each whole or not at all: submit the error's `unsettled` again, which queues none of "
            "them twice"
        )


class BatchChunk(Chunk):
    """A part of a batch that is sent at once, with all that was taken for it."""

    def __init__(self, first_index: int) -> None:
        super().__init__()
        self.first_index = first_index
        self.taken: list[Submittable] = []
        self.refused: list[SubmitOutcome] = []

    def take(self, request: Submittable) -> None:
        """The next request: a job to send, or refused."""
        index = self.first_index + len(self.taken)
        try:
            job = as_job(request)
        except InvalidRequest as error:
            self.taken.append(request)
            self.refused.append(SubmitOutcome(index, error=error))
        else:
            self.taken.append(job)
            self.add(IndexedJob(index, job))

    def outcomes(self, found: Iterable[Submission | Refusal]) -> list[SubmitOutcome]:
        """What became of each request, given what the enqueue script answered."""
        settled = [_outcome(job.index, became) for job, became in zip(self.jobs, found, strict=True)]
        return sorted(settled + self.refused, key=_index) if self.refused else settled


class Batch:
    """All that was taken so far, in the order of the requests."""

    def __init__(self) -> None:
        self.outcomes: list[SubmitOutcome] = []
        self._open: list[BatchChunk] = []
        self._source_error: Exception | None = None

    def start_chunk(self) -> BatchChunk:
        """What to send next; it is open until it is settled."""
        first_index = self._open[-1].first_index + len(self._open[-1].taken) if self._open else len(self.outcomes)
        self._open.append(BatchChunk(first_index))
        return self._open[-1]

    def settle(self, chunk: BatchChunk, found: Iterable[Submission | Refusal]) -> None:
        """Note what became of the chunk, which is the oldest that is open."""
        self.outcomes += chunk.outcomes(found)
        self._open.remove(chunk)

    def source_failed(self, error: Exception) -> None:
        """Note that the caller's iterable raised: what it gave before is submitted first."""
        self._source_error = error

    def finish(self) -> list[SubmitOutcome]:
        """All outcomes, once every chunk is settled.

        Raises:
            Exception: what the caller's iterable raised.
        """
        if self._source_error is not None:
            queued = sum(outcome.submission is not None for outcome in self.outcomes)
            self._source_error.add_note(
                f"{len(self.outcomes):,} requests came before this; {queued:,} of them are queued as jobs"
            )
            raise self._source_error
        return self.outcomes

    def failure(self, trouble: str) -> BatchSubmitFailed:
        """The error of a batch that Redis ended."""
        return BatchSubmitFailed(trouble, self.outcomes, [item for chunk in self._open for item in chunk.taken])


def _outcome(index: int, became: Submission | Refusal) -> SubmitOutcome:
    if isinstance(became, Submission):
        return SubmitOutcome(index, became)
    return SubmitOutcome(index, error=became)


def _index(outcome: SubmitOutcome) -> int:
    return outcome.index
