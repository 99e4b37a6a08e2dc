"""What follows from the answer to an attempt: told, once more after a while, or given up. No I/O."""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

DEAD_SECONDS: Final = 7 * 24 * 3600
"""How long an event that was given up is kept, for a replay."""
FIRST_SECONDS: Final = 5.0
MOST_ATTEMPTS: Final = 11
MOST_JITTER: Final = 0.25


class Verdict(StrEnum):
    """What becomes of an event."""

    TOLD = "told"
    LATER = "later"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said; without a status, why it said nothing."""

    status: int | None = None
    trouble: str = ""
    retry_after: str | None = None
    """The header of this name."""
    is_hopeless: bool = False
    """Another attempt would be the same: an operator has to change something first."""

    @property
    def is_told(self) -> bool:
        """The receiver has it."""
        return self.status is not None and HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def wrong(self) -> str:
        """What went wrong, for people; nothing of what the receiver wrote."""
        if self.status is None:
            return self.trouble
        is_redirect = HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST
        return f"HTTP {self.status}" + (": redirects are not followed" if is_redirect else "")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the event."""

    verdict: Verdict
    delay_seconds: float = 0.0
    """Until the next attempt."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """Pauses between attempts: each ``factor`` times the one before, up to the longest; together about a day."""

    first_seconds: float = FIRST_SECONDS
    factor: float = 4.0
    longest_seconds: float = 6 * 3600.0
    most_attempts: int = MOST_ATTEMPTS

    def decision(self, answer: Answer, attempts: int, *, now: float, chance: float) -> Decision:
        """What follows after so many attempts.

        ``chance``, from 0 to 1, spreads the pause by a quarter in either direction, so that what failed together does
        not come back together. A receiver's ``Retry-After`` makes the pause longer, up to the longest.
        """
        if answer.is_told:
            return Decision(Verdict.TOLD)
        if answer.status == HTTPStatus.GONE or answer.is_hopeless or attempts >= self.most_attempts:
            return Decision(Verdict.DEAD)
        pause_seconds = self.first_seconds
        for _ in range(attempts - 1):  # not a power, which could overflow
            pause_seconds = min(pause_seconds * self.factor, self.longest_seconds)
        spread_seconds = pause_seconds * (1 + MOST_JITTER * (2 * chance - 1))
        asked_seconds = min(retry_after_seconds(answer.retry_after, now), self.longest_seconds)
        return Decision(Verdict.LATER, max(spread_seconds, asked_seconds))


def retry_after_seconds(header: str | None, now: float) -> float:
    """``Retry-After`` (RFC 9110, 10.2.3) as seconds from ``now``; 0 without one, or when it says neither form."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
