"""What the producer tells about jobs: submitted, where it stands, how it ended."""

from dataclasses import dataclass
from enum import StrEnum

from producer.contract import Failure, GenerationResult
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
            QueueFull: as many jobs of the model wait as may.
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
