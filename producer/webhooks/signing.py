"""Signatures and secrets by the Standard Webhooks specification (standardwebhooks.com, symmetric, ``v1``)."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64."""


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """What a tenant's webhooks are signed with. Moments are seconds since the epoch, by the Redis server's clock."""

    secret: str
    """``whsec_`` and Base64, as receivers take it."""
    made_at: float
    signs_until: float | None
    """None for the one in force; others sign beside it until then."""

    def __repr__(self) -> str:
        return f"WebhookSecret(made_at={self.made_at}, signs_until={self.signs_until})"


def fresh_secret() -> str:
    """A secret with 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def read_secrets(stored: bytes, now: float) -> list[WebhookSecret]:
    """A tenant's secrets that sign at this moment, the one in force first."""
    lines = (line.split(" ") for line in stored.decode().splitlines())
    known = [WebhookSecret(name, float(made), None if until == "-" else float(until)) for name, made, until in lines]
    return [one for one in known if one.signs_until is None or one.signs_until > now]


def signed_headers(event: str, seconds: int, payload: bytes, signers: Iterable[WebhookSecret]) -> dict[str, str]:
    """The three headers: a receiver that knows any of the secrets can check who sent this, and when.

    ``seconds`` are since the epoch, of this attempt: a receiver refuses what was signed minutes ago.
    """
    content = b"%b.%d.%b" % (event.encode(), seconds, payload)
    signatures = [_signature(signer.secret, content) for signer in signers]
    return {"webhook-id": event, "webhook-timestamp": str(seconds), "webhook-signature": " ".join(signatures)}


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
