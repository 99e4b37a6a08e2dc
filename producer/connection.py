"""How the producers talk to Redis: timeouts, where it is, and what an error of the client library means to a caller."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from producer.errors import FleetUnreachable, SubmitFailed
from producer.refusals import advice
from producer.sentinel_address import SentinelAddress, names_sentinels

CONNECT_TIMEOUT_SECONDS: Final = 3.0
"""A Redis that is not there is reported after this long."""
SOCKET_TIMEOUT_SECONDS: Final = 10.0
"""A command that is not answered for this long has failed."""
OUTAGE_SECONDS: Final = 30.0
"""A ``map`` that has begun outlasts a Redis that is away for this long."""
FALLBACK_SECONDS: Final = 1.0
"""A waiting caller looks at least this often, because a published result can be missed."""

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0


def address(redis_url: str) -> str:
    """Where the URL points, without its password."""
    if names_sentinels(redis_url):
        return str(SentinelAddress.parsed(redis_url))
    parts = urlsplit(redis_url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


def may_pass(error: RedisError) -> bool:
    """Whether the connection is what failed, so that the same command may work in a moment."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    return isinstance(error, RedisConnectionError | RedisTimeoutError)


def was_cut_off(error: RedisError) -> bool:
    """Whether the connection broke, so that a fresh one may work at once: a server restarted behind a kept one."""
    return may_pass(error) and isinstance(error, RedisConnectionError)


@contextmanager
def asking(redis_url: str) -> Iterator[None]:
    """Around questions to Redis: the client library's errors become :class:`FleetUnreachable`."""
    try:
        yield
    except RedisError as error:
        raise FleetUnreachable(
            f"Redis at {address(redis_url)} could not be reached, or refused: {_reason(error)}"
        ) from error


@contextmanager
def submitting(redis_url: str) -> Iterator[None]:
    """Around submissions: the client library's errors become :class:`SubmitFailed`."""
    try:
        yield
    except RedisError as error:
        raise SubmitFailed(
            f"{submit_trouble(redis_url, error)}. Nothing is half-queued and submitting again is safe; with an "
            "idempotency_key it can not make a second job either"
        ) from error


def submit_trouble(redis_url: str, error: RedisError) -> str:
    """What happened to a submission, without a full stop."""
    return f"Redis at {address(redis_url)} could not be reached, or refused the job: {_reason(error)}"


def _reason(error: RedisError) -> str:
    said = str(error).rstrip(".") or type(error).__name__
    todo = advice(error)
    return f"{said}: {todo}" if todo else said


def refuse_errors(replies: Sequence[Any]) -> Sequence[Any]:
    """The replies of a pipeline.

    Raises:
        RedisError: the first of them that is one.
    """
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


class Deadline:
    """The moment until which a caller waits; None waits for ever."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._ends_at = None if timeout_seconds is None else monotonic() + timeout_seconds

    def remaining(self, at_most_seconds: float) -> float:
        """Seconds left, but no more than ``at_most_seconds``; never negative."""
        if self._ends_at is None:
            return at_most_seconds
        return min(at_most_seconds, max(0.0, self._ends_at - monotonic()))

    @property
    def has_passed(self) -> bool:
        """Whether the caller has waited long enough."""
        return self._ends_at is not None and monotonic() >= self._ends_at


class Outage:
    """Counts how long Redis has been away, and says for how long to pause before the next attempt."""

    def __init__(self, patience_seconds: float | None) -> None:
        self._patience_seconds = patience_seconds
        self._began_at: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def over(self) -> None:
        """Redis answered."""
        self._began_at = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def pause_seconds(self, error: RedisError) -> float:
        """How long to pause after this error.

        Raises:
            RedisError: the error given, when it will not pass or the patience is used up.
        """
        now = monotonic()
        self._began_at = now if self._began_at is None else self._began_at
        if not may_pass(error) or (
            self._patience_seconds is not None and now - self._began_at >= self._patience_seconds
        ):
            raise error
        pause_seconds, self._pause_seconds = self._pause_seconds, min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        return pause_seconds
