"""The note in the outbox that a job's end is to be told: ``webhooks.lua`` keeps it, the enqueue script writes it."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from pydantic import ValidationError

from producer.contract import GenerationRequest
from producer.errors import InvalidRequest, OutboxFull
from producer.flow import escaped_tenant

MOST_PENDING: Final = 2_000_000
"""Webhooks that may wait in all: some 300 MiB of Redis while their jobs have not ended, about 1 KiB each afterwards."""


def note_of(request: GenerationRequest) -> dict[str, Any]:
    """What the scripts need of a request that has a webhook."""
    return {"tenant": escaped_tenant(request.tenant), "url": request.webhook, "most_pending": MOST_PENDING}


def note_in(message: bytes) -> bytes:
    """The same as JSON of the request in a queue's message; empty without a webhook, or where no producer wrote it."""
    try:
        content = orjson.loads(message)
        if "fleet" not in content["headers"]:
            return b""
        request = GenerationRequest.model_validate(orjson.loads(content["body"])[0][0])
    except (orjson.JSONDecodeError, ValidationError, TypeError, LookupError):
        return b""
    return orjson.dumps(note_of(request)) if request.webhook is not None else b""


def webhook_refusal(request: GenerationRequest, kind: str, values: Sequence[Any]) -> InvalidRequest | OutboxFull | None:
    """What the enqueue script objects to a webhook, by its reply; None where it objects to something else."""
    match kind, *values:
        case "outbox_full", limit, depth:
            return OutboxFull(request.model, int(limit), int(depth))
        case ["no_webhook_secret"]:
            return InvalidRequest(_no_secret(request.tenant))
    return None


def _no_secret(tenant: str | None) -> str:
    whose, name = ("jobs without a tenant have", "") if tenant is None else (f"tenant {tenant!r} has", f" {tenant}")
    return f"webhook: {whose} no secret to sign it with; make one with: fleet webhooks secret create{name}"
