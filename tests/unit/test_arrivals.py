"""What a claimed message is, and what becomes of it before anybody acts on it."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.exceptions import DecodeError
from kombu.transport.virtual import Channel, Message

from producer.contract import FailureCode
from tests.deliveries import SUBMISSION, claimed, job_message, stock_message
from workers.transport.arrivals import Arrival, Fate, Rules, judge, parse, screenable
from workers.transport.claimed import ClaimedMessage
from workers.transport.drain_policy import Place
from workers.transport.lease_store import Screening

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
RULES = Rules("fleet.llama", max_deliveries=3, server_seconds=NOW.timestamp(), offset_seconds=0.0)
TO_RUN = (Screening.RUN, "")


def judged(
    raw: bytes, screened: tuple[Screening, str] = TO_RUN, *, delivery: int = 1, offset_seconds: float = 0.0
) -> Arrival:
    """The fate of this message, claimed at ``NOW`` by the server's clock."""
    message = claimed(raw, delivery=delivery)
    rules = Rules(RULES.queue, RULES.max_deliveries, RULES.server_seconds, offset_seconds)
    return judge(message, parse(message), screened, rules)


def parsed(**parts: Any) -> tuple[dict[str, Any], str]:  # noqa: ANN401 - parts of a message
    """A message with parts of its envelope replaced, read."""
    result = parse(claimed(json.dumps(json.loads(job_message()) | parts).encode()))
    assert not isinstance(result, str)
    return result


def letter_of(arrival: Arrival) -> dict[str, Any]:
    """What the dead letter says."""
    assert arrival.held.dead_letter is not None
    letter: dict[str, Any] = json.loads(arrival.held.dead_letter.text)
    assert letter["letter_id"] == arrival.held.dead_letter.letter_id
    return letter


class _DecodingChannel(Channel):
    """Kombu's virtual channel as far as it decodes bodies; it has no connection."""

    def __init__(self) -> None:
        """Without the connection that the stock channel asks for."""


# What a message is.


def test_a_message_carries_the_tag_that_it_was_claimed_under() -> None:
    """Not the one that its sender gave it: an acknowledgement must mean this delivery."""
    result = parse(claimed(job_message("j"), "fresh"))
    assert not isinstance(result, str)
    message, job_id = result
    assert (message["properties"]["delivery_tag"], job_id) == ("fresh", "j")


@pytest.mark.parametrize(("delivery", "is_redelivered"), [(1, None), (2, True), (3, True)])
def test_a_message_says_whether_it_was_delivered_before(delivery: int, is_redelivered: bool | None) -> None:  # noqa: FBT001 - a table
    """Where Celery looks, and where kombu's own restoring says so."""
    result = parse(claimed(job_message(), delivery=delivery))
    assert not isinstance(result, str)
    assert result[0]["headers"].get("redelivered") is is_redelivered
    assert result[0]["properties"]["delivery_info"].get("redelivered") is is_redelivered


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\x00\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "not a message but NoneType"),
        (b"5", "not a message but int"),
        (b'"text"', "not a message but str"),
        (b"[1, 2]", "not a message but list"),
        (b"{}", "lacks"),
        (b'{"body": "x", "headers": {}}', "lacks"),
        (b'{"body": "x", "headers": {}, "properties": []}', "lacks"),
        (b'{"body": "x", "headers": null, "properties": {}}', "lacks"),
        (b'{"body": "x", "headers": "h", "properties": {}}', "lacks"),
        (b'{"headers": {}, "properties": {}}', "lacks"),
        (b'{"body": "x", "headers": {}, "properties": {"delivery_info": []}}', "delivery_info"),
        (b'{"body": "x", "headers": {"id": "\\ud800"}, "properties": {}}', "lone surrogate"),
    ],
)
def test_what_is_no_message_is_buried_with_the_reason(raw: bytes, reason: str) -> None:
    """The worker lives on; an operator finds the element as it was."""
    arrival = judged(raw)
    assert (arrival.fate, arrival.held.job_id) == (Fate.BURY, None)
    letter = letter_of(arrival)
    assert reason in letter["reason"]
    assert (letter["code"], letter["job_id"], letter["letter_id"]) == (FailureCode.INVALID_REQUEST, None, "tag")
    assert letter.get("message", "").encode() == raw or base64.b64decode(letter["message_base64"]) == raw


@pytest.mark.parametrize("job_id", [None, 5, ["j"], ""])
def test_a_message_without_a_job_id_is_delivered(job_id: object) -> None:
    """Whatever stands in its place: Celery decides what a message without an id is."""
    arrival = judged(job_message(id=job_id))
    assert (arrival.fate, arrival.held.job_id) == (Fate.DELIVER, None)


def test_headers_may_be_missing() -> None:
    """Celery's old message protocol has none."""
    arrival = judged(b'{"body": "x", "properties": {}}')
    assert (arrival.fate, arrival.message["headers"]) == (Fate.DELIVER, {})


@pytest.mark.parametrize(
    ("body", "encoding", "read"),
    [
        ("[1]", None, [1]),
        ("[1]", "utf-8", [1]),
        (base64.b64encode(b"[1]").decode(), "base64", [1]),
        ("5", "base64", 5),  # not base64: as it stands
        ("x", "base64", DecodeError),
        ("\ud800", "base64", DecodeError),
        ("x", "rot13", DecodeError),
        ("x", 5, DecodeError),
        (["x"], "base64", DecodeError),
        ({"x": 1}, None, DecodeError),
        (None, "base64", None),
    ],
)
def test_kombu_makes_a_message_of_any_body(body: object, encoding: object, read: object) -> None:
    """A body that is not encoded as it says would raise in kombu, past Celery's answer: it ended the worker."""
    envelope = json.loads(job_message())["properties"]
    message, _ = parsed(body=body, properties=envelope | ({"body_encoding": encoding} if encoding else {}))
    made = Message(message, channel=_DecodingChannel())  # type: ignore[no-untyped-call]
    if read is DecodeError:
        with pytest.raises(DecodeError):
            _ = made.payload
    else:
        assert made.payload == read


def test_only_messages_that_name_a_job_are_screened() -> None:
    """In their order."""
    raws = [job_message("a"), b"{", job_message(id=None), job_message("b")]
    assert screenable([parse(claimed(raw)) for raw in raws]) == ["a", "b"]


# What becomes of it.


def test_a_good_message_is_delivered() -> None:
    """Under its job and its submission."""
    arrival = judged(job_message("j"))
    assert arrival.fate is Fate.DELIVER
    assert (arrival.held.job_id, arrival.held.submission_token, arrival.held.tag) == ("j", SUBMISSION, "tag")
    assert (arrival.held.verdict, arrival.held.dead_letter) == (None, None)


def test_a_stock_senders_message_is_delivered() -> None:
    """It has no submission token: no cancellation of ours is meant for it."""
    arrival = judged(stock_message(), (Screening.CANCELLED, SUBMISSION))
    assert (arrival.fate, arrival.held.submission_token) == (Fate.DELIVER, None)


@pytest.mark.parametrize("fleet", [None, "text", [], {}, {"submission_token": 5}])
def test_a_header_of_ours_that_is_malformed_is_no_token(fleet: object) -> None:
    """The message is delivered: the header is no part of the request."""
    arrival = judged(job_message(fleet=fleet), (Screening.CANCELLED, SUBMISSION))
    assert (arrival.fate, arrival.held.submission_token) == (Fate.DELIVER, None)


@pytest.mark.parametrize(
    ("screened", "fate"),
    [
        ((Screening.RUN, ""), Fate.DELIVER),
        ((Screening.SETTLED, ""), Fate.ACKNOWLEDGE),
        ((Screening.CANCELLED, SUBMISSION), Fate.REVOKE),
        ((Screening.CANCELLED, "of an earlier submission"), Fate.DELIVER),
    ],
)
@pytest.mark.parametrize("delivery", [1, 3])
def test_a_job_is_run_unless_it_has_a_result_or_its_submission_was_cancelled(
    screened: tuple[Screening, str], fate: Fate, delivery: int
) -> None:
    """A cancel of one submission never touches a later one of the same id."""
    assert judged(job_message(), screened, delivery=delivery).fate is fate


def test_above_its_last_delivery_a_job_is_poisoned() -> None:
    """It is answered without being run, and an operator finds it with its history."""
    history = ({"event": "the engine died", "delivery": 3},)
    raw = job_message("j")
    message = ClaimedMessage("tag", Place("6"), 4, 0, history, raw)
    arrival = judge(message, parse(message), TO_RUN, RULES)
    assert arrival.fate is Fate.DELIVER
    assert arrival.held.verdict is not None
    assert arrival.held.verdict.code is FailureCode.POISONED
    assert "3 times" in arrival.held.verdict.message
    assert letter_of(arrival) == {
        "letter_id": "j",
        "job_id": "j",
        "queue": "fleet.llama",
        "priority_step": 6,
        "code": "poisoned",
        "reason": arrival.held.verdict.message,
        "buried_at": NOW.timestamp(),
        "history": [{"event": "the engine died", "delivery": 3}],
        "message": raw.decode(),
    }


def test_on_its_last_delivery_a_job_is_run() -> None:
    """Three deliveries are three attempts."""
    assert judged(job_message(), delivery=3).held.verdict is None


@pytest.mark.parametrize(
    ("screened", "fate"),
    [((Screening.SETTLED, ""), Fate.ACKNOWLEDGE), ((Screening.CANCELLED, SUBMISSION), Fate.REVOKE)],
)
def test_a_poisoned_job_that_is_over_already_is_no_dead_letter(screened: tuple[Screening, str], fate: Fate) -> None:
    """Its caller has an answer, or wants none."""
    arrival = judged(job_message(), screened, delivery=4)
    assert (arrival.fate, arrival.held.verdict, arrival.held.dead_letter) == (fate, None, None)


# Its time.


@pytest.mark.parametrize("eta", [NOW + timedelta(minutes=5), (NOW + timedelta(minutes=5)).replace(tzinfo=None)])
def test_a_message_for_later_is_parked_until_then(eta: datetime) -> None:
    """By the server's clock, whatever this machine's says; a moment without a zone is UTC, as for Celery."""
    arrival = judged(job_message(eta=eta.isoformat()), offset_seconds=-7200.0)
    assert (arrival.fate, arrival.delay_seconds) == (Fate.PARK, 300.0)


@pytest.mark.parametrize("seconds", [-3600.0, 0.0, 0.04])
def test_a_message_whose_time_has_come_is_delivered_as_one_without_a_time(seconds: float) -> None:
    """Celery would compare it with this machine's clock, and wait."""
    arrival = judged(job_message(eta=(NOW + timedelta(seconds=seconds)).isoformat()))
    assert (arrival.fate, arrival.message["headers"]["eta"]) == (Fate.DELIVER, None)


@pytest.mark.parametrize("eta", ["tomorrow", "", 5, {}, True])
def test_a_time_that_cannot_be_read_reaches_celery(eta: object) -> None:
    """Which answers the caller that it is invalid."""
    arrival = judged(job_message(eta=eta))
    assert (arrival.fate, arrival.message["headers"]["eta"]) == (Fate.DELIVER, eta)


@pytest.mark.parametrize(
    ("screened", "fate"),
    [((Screening.SETTLED, ""), Fate.ACKNOWLEDGE), ((Screening.CANCELLED, SUBMISSION), Fate.REVOKE)],
)
def test_a_message_for_later_that_is_over_already_is_not_parked(screened: tuple[Screening, str], fate: Fate) -> None:
    """Nobody waits for its time."""
    assert judged(job_message(eta=(NOW + timedelta(hours=1)).isoformat()), screened).fate is fate


@pytest.mark.parametrize(
    ("offset_seconds", "shown_seconds"),
    [
        (0.0, 60.0),
        (0.4, 60.0),  # the clocks agree
        (3600.0, -3540.0),  # ours is an hour behind the server's
        (-3600.0, 3660.0),  # ours is an hour ahead
    ],
)
def test_an_expiry_is_told_in_terms_of_this_machines_clock(offset_seconds: float, shown_seconds: float) -> None:
    """Celery compares it with that one; the moment is the server's."""
    expires = NOW + timedelta(minutes=1)
    arrival = judged(job_message(expires=expires.isoformat()), offset_seconds=offset_seconds)
    shown = datetime.fromisoformat(arrival.message["headers"]["expires"])
    assert shown == NOW + timedelta(seconds=shown_seconds)


@pytest.mark.parametrize("expires", ["soon", 5, None, "9999-12-31T23:59:59.9+00:00"])
def test_an_expiry_that_cannot_be_shifted_stays(expires: object) -> None:
    """What cannot be read is Celery's to answer; the end of the calendar is far enough away."""
    arrival = judged(job_message(expires=expires), offset_seconds=-3600.0)
    assert (arrival.fate, arrival.message["headers"]["expires"]) == (Fate.DELIVER, expires)
