"""What happens in a worker, as values. The pool emits them; observers (metrics, logs) take them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BatchDrained:
    """One micro-batch went from the queue's buffer into the engine."""

    job_count: int


@dataclass(frozen=True, slots=True)
class JobFinished:
    """One job has its outcome."""

    job_id: str
    status: str
    """``succeeded``, a failure code, ``cancelled`` or ``given_back``."""
    running_seconds: float
    queued_seconds: float | None = None
    first_token_seconds: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempt: int = 1


class Observer(Protocol):
    """Takes records; called from several threads, must be quick and must not raise."""

    def batch_drained(self, record: BatchDrained) -> None:
        """A micro-batch entered the engine."""

    def job_finished(self, record: JobFinished) -> None:
        """A job has its outcome."""

    def active_jobs(self, count: int) -> None:
        """This many jobs are in the pool now."""
