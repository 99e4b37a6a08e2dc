"""Whether and when a job that found no room is tried again: one pure function."""

from dataclasses import dataclass
from typing import Final

MAX_DOUBLINGS: Final = 30
"""Of the back-off; far beyond any sensible bound, and a float still holds it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, bounded by attempts and by the job's deadline."""

    max_attempts: int = 6
    """Attempts in all, the first one included."""
    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 60.0


DEFAULT_RETRY_POLICY: Final = RetryPolicy()


def retry_delay_seconds(
    policy: RetryPolicy, *, attempt: int, remaining_seconds: float | None, jitter: float
) -> float | None:
    """Seconds until the next attempt; None when there is to be none.

    Args:
        policy: bounds.
        attempt: the attempt that just failed, 1 for the first.
        remaining_seconds: until the job's deadline; None without one.
        jitter: a random number from [0, 1): jobs that were refused together shall not come back together. The wait is
            between half of the back-off and the whole ("equal jitter",
            https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    if attempt >= policy.max_attempts:
        return None
    backoff_seconds = min(
        policy.backoff_initial_seconds * 2.0 ** min(attempt - 1, MAX_DOUBLINGS), policy.backoff_max_seconds
    )
    delay_seconds = backoff_seconds / 2 * (1 + jitter)
    if remaining_seconds is not None and delay_seconds >= remaining_seconds:
        return None
    return delay_seconds
