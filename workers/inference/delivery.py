"""One delivery of one job, as it came out of the queue and before anybody trusted it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from workers.tracing import Attempt, JobTrace, Tracing


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the queue handed over."""

    job_id: str
    attempt_id: str
    """Unique per delivery; what the engine knows the job by."""
    arguments: Sequence[Any]
    """Positional arguments of the task: results of preceding tasks of a chain or chord, then the request."""
    received_at: float
    """Seconds since the epoch, this machine's clock."""
    attempt: int = 1
    """1 for the first attempt of this submission."""
    retries: int = 0
    """How often this submission was put off because no engine had room."""
    tag: str = ""
    """The queue's name for this delivery."""
    queue_priority: int = 0
    """Celery's priority of the message, 0 first."""
    system: Mapping[str, Any] = field(default_factory=dict)
    """The ``fleet`` header, not validated; empty for what a stock Celery sender pushed."""
    trace: JobTrace | None = None
    """None: nobody traces."""

    def redelivered(self, delivery: int, retries: int) -> Self:
        """The same, with what the queue counted: its ``delivery``-th, after ``retries`` that found no room."""
        return replace(self, attempt=self.attempt + delivery - 1 + retries, retries=retries)

    def traced(self, tracing: Tracing | None) -> Self:
        """The same; its trace begins, where there is one."""
        if tracing is None:
            return self
        context = self.system.get("trace_context")
        attempt = Attempt(self.job_id, self.attempt, self.received_at, self.enqueued_at, context)
        return replace(self, trace=tracing.consumed(attempt))

    @property
    def enqueued_at(self) -> float | None:
        """Seconds since the epoch by Redis' clock, where the producer recorded it."""
        value = self.system.get("enqueued_at")
        return float(value) if isinstance(value, int | float) else None

    @property
    def queued_seconds(self) -> float | None:
        """How long it waited; never negative, though two clocks take part."""
        return None if self.enqueued_at is None else max(0.0, self.received_at - self.enqueued_at)
