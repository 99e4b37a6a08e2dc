"""What a claimed message is, before anything acts on it: parsed, screened, and told what is to become of it."""

import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from producer.contract import FailureCode
from workers.inference.classify import Failed
from workers.transport.claimed import ClaimedMessage
from workers.transport.lease_store import DeadLetter, Screening
from workers.transport.ledger import Held

MAX_CLOCK_DIFFERENCE_SECONDS: Final = 0.5
"""Up to here a worker's clock counts as right."""
MIN_PARK_SECONDS: Final = 0.05
"""What is due sooner is not worth sending back."""


class Fate(StrEnum):
    """What becomes of a claimed message."""

    DELIVER = "deliver"
    ACKNOWLEDGE = "acknowledge"
    """Its job has a result."""
    REVOKE = "revoke"
    """Its submission was cancelled."""
    PARK = "park"
    """Its time has not come."""
    BURY = "bury"
    """It is no message at all."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One claimed message and its fate."""

    fate: Fate
    held: Held
    message: dict[str, Any]
    """As kombu wants it; empty for what is buried."""
    delay_seconds: float = 0.0
    """Until a parked one is due."""


def parse(claimed: ClaimedMessage) -> tuple[dict[str, Any], str] | str:
    """The message and its job's id (empty when it names none), or why it is no message."""
    try:
        message = _loads(claimed.raw)
    except (ValueError, RecursionError) as error:  # brackets nested a thousand deep are the latter
        return f"the queue's element is not JSON: {error}"
    if not isinstance(message, dict):
        return f"the queue's element is not a message but {type(message).__name__}"
    properties, headers = message.get("properties"), message.get("headers", {})
    if not isinstance(properties, dict) or not isinstance(headers, dict) or "body" not in message:
        return "the queue's element lacks what every kombu message has: body, headers and properties"
    if not isinstance(properties.get("delivery_info", {}), dict):
        return "the message's delivery_info is no object"
    job_id = headers.get("id")
    job_id = job_id if isinstance(job_id, str) else ""
    if flaw := _flaw_of(job_id, headers):
        return flaw
    _take_out_body(message, properties)
    properties["delivery_tag"] = claimed.tag
    properties.setdefault("delivery_info", {})
    message["headers"] = headers
    if claimed.delivery > 1:
        headers["redelivered"] = properties["delivery_info"]["redelivered"] = True
    return message, job_id


def _loads(raw: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw)  # which takes more: NaN, lone surrogates, other encodings


def _flaw_of(job_id: str, headers: Mapping[str, Any]) -> str:
    """Why nobody can be answered; empty when somebody can, or nobody waits."""
    if not _is_text(job_id):
        return "the message's job id is no text: it has a lone surrogate"
    if not job_id and (size := _refused_bytes(headers)):
        return f"{_too_large(size)}; what it was is not kept, and it named no job"
    return ""


def _is_text(name: str) -> bool:
    """Whether Redis can have a key of this name: JSON lets through what has no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _take_out_body(message: dict[str, Any], properties: dict[str, Any]) -> None:
    """Undo the body's transport encoding, as kombu would, but where it raises with nobody to answer the caller.

    A body that is not encoded as it says is left as it is: Celery cannot read it, and answers that.
    """
    if properties.pop("body_encoding", None) == "base64":
        with contextlib.suppress(TypeError, ValueError):
            message["body"] = base64.b64decode(message["body"])


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fate of a message depends on beside the message."""

    queue: str
    max_deliveries: int
    server_seconds: float
    """The server's clock at the claim."""
    offset_seconds: float
    """How far it is ahead of this machine's."""


def judge(
    claimed: ClaimedMessage, parsed: tuple[dict[str, Any], str] | str, screened: tuple[Screening, str], rules: Rules
) -> Arrival:
    """The fate of one claimed message."""
    if isinstance(parsed, str):
        held = Held(claimed, None, dead_letter=dead_letter(claimed, None, FailureCode.INVALID_REQUEST, parsed, rules))
        return Arrival(Fate.BURY, held, {})
    message, job_id = parsed
    headers = message["headers"]
    held = Held(claimed, job_id or None, _submission_token(headers))
    screening, cancelled_token = screened
    if screening is Screening.SETTLED:
        return Arrival(Fate.ACKNOWLEDGE, held, message)
    if screening is Screening.CANCELLED and cancelled_token == held.submission_token:
        return Arrival(Fate.REVOKE, held, message)
    held.verdict, held.dead_letter = _verdict(claimed, parsed, rules)
    if held.verdict is not None:
        return Arrival(Fate.DELIVER, held, message)
    due_at = _moment(headers.get("eta"))
    if due_at is not None:
        if due_at - rules.server_seconds > MIN_PARK_SECONDS:
            return Arrival(Fate.PARK, held, message, due_at - rules.server_seconds)
        headers["eta"] = None  # it is due; Celery would look at this machine's clock once more
    _to_own_clock(headers, rules)
    return Arrival(Fate.DELIVER, held, message)


def _verdict(
    claimed: ClaimedMessage, parsed: tuple[dict[str, Any], str], rules: Rules
) -> tuple[Failed | None, DeadLetter | None]:
    """The answer to a job that is not to be run, and what is kept of it; None for one that is."""
    message, job_id = parsed
    if size := _refused_bytes(message["headers"]):
        return Failed(FailureCode.INVALID_REQUEST, _too_large(size)), None
    if claimed.delivery > rules.max_deliveries:
        reason = f"its worker or engine died under it {claimed.delivery - 1} times; it is not tried again"
        letter = dead_letter(claimed, job_id, FailureCode.POISONED, reason, rules)
        return Failed(FailureCode.POISONED, reason), letter
    return None, None


def dead_letter(
    claimed: ClaimedMessage, job_id: str | None, code: FailureCode, reason: str, rules: Rules
) -> DeadLetter:
    """What an operator finds: the message as it was, why it is out of the queue, and what was tried."""
    letter_id = job_id or claimed.tag
    try:
        message = {"message": claimed.raw.decode()}
    except UnicodeDecodeError:
        message = {"message_base64": base64.b64encode(claimed.raw).decode()}
    letter = {
        "letter_id": letter_id,
        "job_id": job_id,
        "queue": rules.queue,
        "priority_step": claimed.step,
        "code": code.value,
        "reason": reason,
        "buried_at": rules.server_seconds,
        "history": claimed.history,
    }
    return DeadLetter(letter_id, orjson.dumps(letter | message).decode())


def _refused_bytes(headers: Mapping[str, Any]) -> int:
    """Size of the message in whose place this one is, since that was too large (``drain.lua``); otherwise 0."""
    system = headers.get("fleet")
    size = system.get("refused_bytes") if isinstance(system, dict) else None
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else 0


def _too_large(size: int) -> str:
    return (
        f"the message in the queue has {size:,} bytes, more than worker.max_message_bytes allows, so it was not read; "
        "send a smaller one"
    )


def _submission_token(headers: Mapping[str, Any]) -> str | None:
    system = headers.get("fleet")
    token = system.get("submission_token") if isinstance(system, dict) else None
    return token if isinstance(token, str) else None


def _moment(iso: object) -> float | None:
    """Seconds since the epoch; None when there is no moment, or none that can be read: Celery answers that one."""
    if not isinstance(iso, str):
        return None
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _to_own_clock(headers: dict[str, Any], rules: Rules) -> None:
    """Celery compares ``expires`` with this machine's clock: say it in that clock's terms."""
    expires_at = _moment(headers.get("expires"))
    if expires_at is None or abs(rules.offset_seconds) <= MAX_CLOCK_DIFFERENCE_SECONDS:
        return
    # At the edge of the calendar there is no such moment; a few seconds are nothing there.
    with contextlib.suppress(ValueError, OverflowError):
        headers["expires"] = datetime.fromtimestamp(expires_at - rules.offset_seconds, UTC).isoformat()


def screenable(parsed: Sequence[tuple[dict[str, Any], str] | str]) -> list[str]:
    """The job ids among these, in order."""
    return [item[1] for item in parsed if not isinstance(item, str) and item[1]]
