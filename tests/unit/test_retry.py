"""Whether and when a job that found no room is tried again."""

import pytest

from workers.inference.retry import MAX_DOUBLINGS, RetryPolicy, retry_delay_seconds

POLICY = RetryPolicy(max_attempts=6, backoff_initial_seconds=1.0, backoff_max_seconds=10.0)
ALMOST_ONE = 1 - 2**-53
"""The largest number that ``random.random`` gives."""


def delay(
    attempt: int, *, jitter: float = 0.0, remaining: float | None = None, policy: RetryPolicy = POLICY
) -> float | None:
    """The decision after this attempt failed."""
    return retry_delay_seconds(policy, attempt=attempt, remaining_seconds=remaining, jitter=jitter)


@pytest.mark.parametrize(
    ("attempt", "shortest", "longest"),
    [
        (1, 0.5, 1.0),
        (2, 1.0, 2.0),
        (3, 2.0, 4.0),
        (4, 4.0, 8.0),
        (5, 5.0, 10.0),  # 16 s by doubling: the bound
    ],
)
def test_the_wait_doubles_up_to_its_bound(attempt: int, shortest: float, longest: float) -> None:
    """And lies between half of the back-off and the whole."""
    assert delay(attempt, jitter=0.0) == shortest
    assert delay(attempt, jitter=0.5) == (shortest + longest) / 2
    assert delay(attempt, jitter=ALMOST_ONE) == pytest.approx(longest)


@pytest.mark.parametrize("attempt", [6, 7, 1000])
def test_after_the_last_attempt_there_is_none(attempt: int) -> None:
    """The first one counts: six attempts are five retries."""
    assert delay(attempt) is None
    assert delay(5) is not None


def test_a_policy_of_one_attempt_never_retries() -> None:
    """Which switches retries off."""
    assert delay(1, policy=RetryPolicy(max_attempts=1)) is None


@pytest.mark.parametrize(
    ("remaining", "is_retried"),
    [
        (None, True),  # no deadline
        (1.01, True),
        (1.0, False),  # it would come back the moment that it expires
        (0.0, False),
        (-5.0, False),  # expired already
    ],
)
def test_a_job_that_would_come_back_after_its_deadline_is_answered_now(
    remaining: float | None,
    is_retried: bool,  # noqa: FBT001 - a table
) -> None:
    """Its caller learns at once what it would learn later."""
    assert (delay(2, remaining=remaining) is not None) == is_retried


def test_the_wait_stays_finite_however_often_it_doubled() -> None:
    """A float would overflow after a thousand doublings."""
    endless = RetryPolicy(max_attempts=10**9, backoff_max_seconds=float("inf"))
    assert delay(10**8, policy=endless) == 2.0**MAX_DOUBLINGS / 2
