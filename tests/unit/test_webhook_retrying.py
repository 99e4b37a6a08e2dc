"""What follows from an answer: told, later, or given up."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from producer.webhooks.retrying import Answer, Retrying, Verdict, retry_after_seconds

RETRYING = Retrying()
NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(200), Verdict.TOLD),
        (Answer(204), Verdict.TOLD),
        (Answer(299), Verdict.TOLD),
        (Answer(199), Verdict.LATER),
        (Answer(301), Verdict.LATER),
        (Answer(404), Verdict.LATER),
        (Answer(500), Verdict.LATER),
        (Answer(410), Verdict.DEAD),
        (Answer(trouble="no answer within 15 s"), Verdict.LATER),
        (Answer(trouble="refused", is_hopeless=True), Verdict.DEAD),
    ],
)
def test_only_2xx_is_told_and_only_410_and_the_hopeless_end_at_once(answer: Answer, verdict: Verdict) -> None:
    """At the first attempt."""
    assert RETRYING.decision(answer, 1, now=NOW, chance=0.5).verdict is verdict


def test_pauses_grow_and_together_take_about_a_day() -> None:
    """Then the event is given up."""
    made = [RETRYING.decision(Answer(503), attempts, now=NOW, chance=0.5) for attempts in range(1, 12)]
    assert [decision.delay_seconds for decision in made[:4]] == [5, 20, 80, 320]
    assert [decision.verdict for decision in made] == [Verdict.LATER] * 10 + [Verdict.DEAD]
    assert 24 <= sum(decision.delay_seconds for decision in made) / 3600 <= 28


def test_chance_spreads_a_pause_by_a_quarter() -> None:
    """In either direction."""
    pauses = [RETRYING.decision(Answer(503), 2, now=NOW, chance=chance).delay_seconds for chance in (0.0, 0.5, 1.0)]
    assert pauses == [15.0, 20.0, 25.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("9" * 40, 9_999_999_999),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0),
        ("-5", 0),
        ("soon", 0),
        ("٣", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float) -> None:
    """And ignored in any other."""
    assert retry_after_seconds(header, NOW) == seconds


def test_retry_after_makes_a_pause_longer_up_to_the_longest() -> None:
    """Never shorter."""
    for header, seconds in (("120", 120), ("1", 5), ("999999", RETRYING.longest_seconds)):
        answer = Answer(503, retry_after=header)
        assert RETRYING.decision(answer, 1, now=NOW, chance=0.5).delay_seconds == seconds
