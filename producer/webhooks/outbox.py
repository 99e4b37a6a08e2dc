"""The outbox in Redis: the runs of its scripts, and what they reply. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote

import orjson

from producer import keys
from producer.errors import InvalidRequest, UnknownWebhook
from producer.script import Script, ScriptRun
from producer.tenants import tenant_field
from producer.watch import POLL_KEYS, SWEEP_JOBS_PER_SECOND
from producer.webhooks.retrying import DEAD_SECONDS, Decision
from producer.webhooks.signing import WebhookSecret, read_secrets

LOOK_SCRIPT: Final = Script.named("webhooks", "webhook_look")
CLAIM_SCRIPT: Final = Script.named("webhooks", "webhook_claim")
SETTLE_SCRIPT: Final = Script.named("webhooks", "webhook_settle")
REPLAY_SCRIPT: Final = Script.named("webhooks", "webhook_replay")
LIST_SCRIPT: Final = Script.named("webhooks", "webhook_list")
SECRET_SCRIPT: Final = Script.named("webhooks", "webhook_secret")

MOST_SWEPT: Final = 500
"""Jobs in turn that one look takes."""
MOST_LISTED: Final = 500
"""Events that one script lists."""


class WebhookState(StrEnum):
    """Which webhooks to list."""

    PENDING = "pending"
    """To be told yet: the job has not ended, or the receiver has not answered."""
    DEAD = "dead"
    """Given up."""


class WebhookKind(StrEnum):
    """Where a webhook stands."""

    AWAITING = "awaiting"
    """Its job has not ended."""
    DUE = "due"
    """It is being told, or waits for its next attempt."""
    DEAD = "dead"
    """Given up, and kept for a replay."""


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One webhook in the outbox."""

    event_id: str
    """The header ``webhook-id`` of all its attempts."""
    job_id: str
    tenant: str | None
    url: str
    kind: WebhookKind
    moment: float | None
    """Of the next attempt, or when it was given up: seconds since the epoch, by the Redis server's clock."""
    attempts: int
    wrong: str
    """What went wrong the last time."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look found."""

    found: int
    awaited: int
    """Jobs that have not ended."""
    is_due: bool
    """Something is to be claimed."""


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """An event that is this deliverer's for one attempt."""

    event_id: str
    receiver: str
    """Host and port as the URL has them."""
    attempt: int
    attempts_before: int
    """Those before it was replayed do not count against it."""
    job_id: str
    tenant: str | None
    url: str
    model: str
    body: bytes
    """What an earlier attempt told, without the result; empty for the first."""
    secrets: tuple[WebhookSecret, ...]
    meta: bytes | None
    """Celery's stored JSON."""
    now: float
    """Moment of the claim: seconds since the epoch, by the Redis server's clock."""


def look_run(most_oldest: int) -> ScriptRun:
    """Find ended jobs; the oldest are looked at each time."""
    arguments = (
        min(most_oldest, POLL_KEYS),
        MOST_SWEPT,
        SWEEP_JOBS_PER_SECOND,
        keys.result(""),
        keys.job_record(""),
        DEAD_SECONDS,
    )
    return ScriptRun(LOOK_SCRIPT, (), arguments)


def read_look(reply: Sequence[int]) -> Looked:
    """Of :func:`look_run`."""
    found, awaited, is_due = reply
    return Looked(found, awaited, bool(is_due))


def claim_run(most: int, lease_seconds: float, most_at_one: int, running: Mapping[str, int]) -> ScriptRun:
    """Claim so many due events; of no receiver more than it may have with those that are ``running``."""
    prefixes = (keys.result(""), keys.job_record(""))
    arguments = (most, repr(lease_seconds), most_at_one, orjson.dumps(running), *prefixes)
    return ScriptRun(CLAIM_SCRIPT, (), arguments)


def read_claims(reply: Sequence[Any]) -> tuple[list[ClaimedEvent], bool]:
    """Of :func:`claim_run`: what was claimed, and whether more is due."""
    moment, is_more, *claims = reply
    now = float(moment)
    return [_claimed(claim, now) for claim in claims], bool(is_more)


def _claimed(claim: Sequence[Any], now: float) -> ClaimedEvent:
    event, receiver, attempt, before, job_id, tenant, url, model, body, secrets, meta = claim
    return ClaimedEvent(
        event.decode(),
        receiver.decode(),
        int(attempt),
        int(before),
        job_id.decode(),
        unquote(tenant.decode()) or None,
        url.decode(),
        model.decode(),
        body,
        tuple(read_secrets(secrets, now)),
        meta or None,
        now,
    )


def settle_run(claimed: ClaimedEvent, decision: Decision, wrong: str, body: bytes) -> ScriptRun:
    """Note what came of the attempt; ``body`` is what to tell when the result is gone."""
    return ScriptRun(
        SETTLE_SCRIPT,
        (),
        (
            claimed.event_id,
            claimed.attempt,
            decision.verdict,
            f"{decision.delay_seconds:.3f}",
            wrong,
            body,
            DEAD_SECONDS,
        ),
    )


def list_run(state: WebhookState, offset: int, limit: int) -> ScriptRun:
    """List some; at most :data:`MOST_LISTED`."""
    return ScriptRun(LIST_SCRIPT, (), (state, offset, min(limit, MOST_LISTED)))


def read_list(reply: Sequence[Any]) -> list[WebhookEvent]:
    """Of :func:`list_run`."""
    return [_event([part.decode() for part in entry]) for entry in reply]


def _event(entry: Sequence[str]) -> WebhookEvent:
    event, job_id, tenant, url, kind, moment, attempts, wrong = entry
    return WebhookEvent(
        event,
        job_id,
        unquote(tenant) or None,
        url,
        WebhookKind(kind),
        float(moment) if moment else None,
        int(attempts),
        wrong,
    )


def replay_run(event_id: str) -> ScriptRun:
    """Let an event be due at once."""
    return ScriptRun(REPLAY_SCRIPT, (), (event_id,))


def read_replay(event_id: str, reply: bytes) -> bool:
    """Of :func:`replay_run`: False when an attempt is being made already.

    Raises:
        UnknownWebhook: its job has not ended, or it was told, or nobody knows it.
    """
    if reply == b"unknown":
        raise UnknownWebhook(event_id)
    return reply == b"due"


def secret_run(tenant: str | None, secret: str, keep_seconds: float | None) -> ScriptRun:
    """Give a tenant its first secret; or, with a time for which the old one signs too, a new one."""
    how = "create" if keep_seconds is None else "rotate"
    return ScriptRun(SECRET_SCRIPT, (), (secret_field(tenant), secret, how, repr(keep_seconds or 0)))


def check_secret(tenant: str | None, reply: bytes) -> None:
    """Of :func:`secret_run`.

    Raises:
        InvalidRequest: there is one already, or none.
    """
    name = "" if tenant is None else f" {tenant}"
    if reply == b"exists":
        raise InvalidRequest(f"there is a secret already; for another one: fleet webhooks secret rotate{name}")
    if reply == b"none":
        raise InvalidRequest(f"there is no secret to rotate; make one with: fleet webhooks secret create{name}")


def secret_field(tenant: str | None) -> str:
    """A tenant's field in the hash of secrets; without a tenant, that of jobs that have none.

    Raises:
        InvalidRequest: no tenant may have this name.
    """
    return "" if tenant is None else tenant_field(tenant)


def read_all_secrets(entries: Mapping[bytes, bytes], now: float) -> dict[str | None, list[WebhookSecret]]:
    """The hash of secrets by tenant, as far as they sign."""
    return {unquote(name.decode()) or None: read_secrets(stored, now) for name, stored in sorted(entries.items())}
