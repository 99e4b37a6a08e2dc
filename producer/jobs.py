"""What the producer tells about jobs: submitted, where it stands, how it ended."""

from dataclasses import dataclass
from enum import StrEnum

from producer.contract import Failure, GenerationResult, Priority, Timings, Usage
from producer.errors import InferenceFailed, InvalidRequest, QueueFull, UnknownModel


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is in the fleet."""

    job_id: str
    enqueued_at: float
    """Seconds since the epoch, by the Redis server's clock."""
    duplicate: bool = False
    """An earlier submission with the same idempotency key had made this job; nothing new was queued."""
    submission_token: str = ""
    """Tells this submission from a later one under the same id; a duplicate has that of the job it names."""
    conversation_key: str | None = None
    """Where the conversation is kept that the job is a turn of; None for other jobs."""


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """What became of one request of a ``submit_many``: exactly one of ``submission`` and ``error`` is set."""

    index: int
    """Position of the request in what was given, from 0."""
    submission: Submission | None = None
    error: InvalidRequest | UnknownModel | QueueFull | None = None

    def unwrap(self) -> Submission:
        """The submission.

        Raises:
            InvalidRequest: the request breaks the contract, or its idempotency key names a job with another body.
            UnknownModel: no worker ever served the model and no operator declared it.
            QueueFull: as many jobs of the model, or of its tenant, wait as may.
        """
        if self.submission is not None:
            return self.submission
        if self.error is None:
            raise ValueError("an outcome holds a submission or an error")
        raise self.error


def job_id_of(job: str | Submission) -> str:
    """The id of a job that a caller named by its id or by its submission."""
    return job.job_id if isinstance(job, Submission) else job


class CancelOutcome(StrEnum):
    """What ``cancel`` found."""

    CANCELLED = "cancelled"
    """It was queued or running, and is not any more: its callers were told."""
    ALREADY_CANCELLED = "already_cancelled"
    ENDED = "ended"
    """It was answered before, or failed, or expired; that stays."""


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptEnd(StrEnum):
    """How an attempt at a job ended; only one that is not ``running``, and is the last, may be the job's end too."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its worker was killed, hung or cut off."""
    INTERRUPTED = "interrupted"
    """Its engine died, or its worker could not go on with it."""
    PUT_OFF = "put_off"
    """There was no room for it."""
    HANDED_BACK = "handed_back"
    """Its worker was stopped; it counts as no attempt, and the next one has the same number."""


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One attempt at a job; None where nobody knows."""

    attempt: int | None
    """1 for the first."""
    worker: str | None
    """Celery node name."""
    begun_at: float | None
    """Seconds since the epoch, when the worker took it."""
    ended_at: float | None
    """Seconds since the epoch; None while it runs."""
    end: AttemptEnd
    reason: str = ""
    """What happened, for operators; empty where ``end`` says it all."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is known of a job at this moment; None where nobody knows (yet, or any more)."""

    job_id: str
    state: JobState
    model: str | None = None
    enqueued_at: float | None = None
    """Seconds since the epoch, by the Redis server's clock."""
    started_at: float | None = None
    """Seconds since the epoch, when a worker took it."""
    worker: str | None = None
    failure: Failure | None = None
    """Set for ``failed`` and ``cancelled``."""
    tenant: str | None = None
    priority: Priority | None = None
    attempt: int | None = None
    """Of its latest start; 1 for the first delivery."""
    ended_at: float | None = None
    """Seconds since the epoch by the clock of whoever answered it."""
    usage: Usage | None = None
    timings: Timings | None = None
    attempts: tuple[JobAttempt, ...] = ()
    """The first one first; of those that did not answer the latest 20. In lists of jobs it is left empty."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How one request of a ``map``, or a job of ``results``, ended: ``result`` or ``failure`` is set, never both."""

    index: int
    """Position in what was given, from 0."""
    job_id: str | None
    """None for a request that was refused before it became a job."""
    result: GenerationResult | None = None
    failure: Failure | None = None

    def unwrap(self) -> GenerationResult:
        """The result.

        Raises:
            InferenceFailed: it has none; the code says why.
        """
        if self.result is not None:
            return self.result
        if self.failure is None:
            raise ValueError("an outcome holds a result or a failure")
        raise InferenceFailed(self.failure.code, self.failure.message)


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """Why the fleet takes jobs for a model."""

    declared_by: str
    """``worker``: one has served it; ``operator``: somebody said that one will."""
    since: float
    """Seconds since the epoch."""
