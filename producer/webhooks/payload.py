"""What a webhook says: ``{"type", "timestamp", "data"}``, as the Standard Webhooks specification has it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from producer.contract import Failure, FailureCode, GenerationResult
from producer.outcome import Outcome, lost_job, read_outcome
from producer.webhooks.outbox import ClaimedEvent

MOST_RESULT_BYTES: Final = 64 * 1024
"""Of JSON: a larger result is not sent along, and is to be fetched."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What to tell."""

    body: bytes
    """The request's body."""
    kept: bytes
    """The same without the result: told when that is not kept any more."""


def payload_of(claimed: ClaimedEvent) -> Payload:
    """What is to be told of an ended job; of one that nobody knows any more, just that."""
    outcome = read_outcome(claimed.meta)
    if outcome is None and claimed.body:
        return Payload(claimed.body, claimed.body)
    outcome = outcome or lost_job(claimed.job_id)
    result = outcome if isinstance(outcome, GenerationResult) else None
    data: dict[str, Any] = {
        "id": claimed.job_id,
        "state": _state(outcome),
        "model": result.model if result else claimed.model or None,
        "tenant": claimed.tenant,
        "usage": result.usage.model_dump() if result else None,
        "failure": outcome.model_dump(mode="json") if isinstance(outcome, Failure) else None,
        "result": None,
    }
    event = {"type": f"job.{data['state']}", "timestamp": _moment(claimed), "data": data}
    kept = _encoded(event)
    if result is None:
        return Payload(kept, kept)
    data["result"] = result.model_dump(mode="json")
    whole = _encoded(event)
    return Payload(whole if len(whole) - len(kept) <= MOST_RESULT_BYTES else kept, kept)


def _state(outcome: Outcome) -> str:
    if isinstance(outcome, GenerationResult):
        return "succeeded"
    return "cancelled" if outcome.code is FailureCode.CANCELLED else "failed"


def _moment(claimed: ClaimedEvent) -> str:
    """When the job ended, by the clock of whoever ended it; of a lost one, when it was missed."""
    try:
        ended_at = datetime.fromisoformat(orjson.loads(claimed.meta or b"")["date_done"])
    except (ValueError, TypeError, LookupError):
        ended_at = datetime.fromtimestamp(claimed.now, UTC)
    aware = ended_at if ended_at.tzinfo else ended_at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _encoded(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:  # a lone surrogate in a model's text, which strict JSON refuses
        return json.dumps(content, separators=(",", ":")).encode()
