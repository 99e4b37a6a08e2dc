"""One job inside the pool."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workers.inference.delivery import Delivery

_tokens = itertools.count(1)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Celery's limits of one job, in seconds; None is no limit."""

    soft_seconds: float | None
    hard_seconds: float | None


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What Celery's ``Request`` wants to hear; all of them safe to call from any thread."""

    trace: Callable[..., Any]
    """Celery's tracer: runs the task and stores, links and chains its outcome."""
    trace_arguments: tuple[Any, ...]
    finished: Callable[[tuple[Any, Any, float]], None]
    """``Request.on_success``, for either outcome: (failed, value, runtime in seconds)."""
    timed_out: Callable[[bool, float], None]
    """``Request.on_timeout``: (soft, limit in seconds)."""
    put_off: Callable[[str], None]
    """The job waits in Redis for another attempt, for this reason."""
    revoke: Callable[[], None]
    """The job was cancelled: store that, and announce it."""
    forget: Callable[[], None]
    """Somebody else has the job; announce nothing."""


@dataclass(eq=False)
class PoolJob:
    """A job from the moment Celery hands it over until its callbacks have run.

    ``is_dead`` is set once nobody wants the outcome any more: revoked, past its hard limit, or handed back.
    """

    delivery: Delivery
    callbacks: Callbacks
    limits: TimeLimits
    accepted_at: float
    """Monotonic seconds."""
    abort: Callable[["PoolJob", str], bool]
    """Give up on a job for the reason named; False when it was over already."""
    tag: str = ""
    """Of its delivery."""
    went_wrong: str = ""
    """Lines of the attempts before this one; empty for most."""
    token: int = field(default_factory=lambda: next(_tokens))
    """What Celery believes to be the process id of the job; ``terminate_job`` gets it back."""
    has_successors: bool = False
    """Something is sent to the queue when it ends: links, or the rest of a chain."""
    is_dead: bool = False
    task: asyncio.Task[None] | None = None

    def terminate(self, _signal: int | None = None) -> None:
        """Celery's ``ApplyResult.terminate``: revoked while running."""
        self.abort(self, "cancelled")
