"""What a claim brought."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from workers.transport.drain_policy import Place

ENVELOPE_BYTES: Final = 1000
"""Of a message around its prompt, at most; ``drain.lua`` counts with as many."""


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """One delivery."""

    tag: str
    place: Place
    delivery: int
    """1 for the first; above the policy's ``max_deliveries`` the message must not be run any more."""
    retries: int
    history: tuple[dict[str, Any], ...]
    """One object per attempt that went wrong: ``at``, ``claimed_at``, ``worker``, ``delivery``, ``how``,
    ``event``."""
    raw: bytes
    tokens: int = 0
    """Prompt and output, as far as the claim could tell."""

    @property
    def step(self) -> int:
        """Celery's priority of the lane it came from."""
        return self.place.step

    @property
    def prompt_bytes(self) -> int | None:
        """Size of the prompt, nearly; None when it came as tokens, or is not worth guessing."""
        if self.place.is_flow:
            return self.place.prompt_bytes
        return len(self.raw) - ENVELOPE_BYTES if len(self.raw) > 2 * ENVELOPE_BYTES else None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call of :meth:`LeaseStore.claim` brought."""

    server_seconds: float
    """The server's clock, in seconds since the epoch."""
    is_isolating: bool
    """The consumer runs suspects apart: until they are done it gets nothing else."""
    is_full: bool
    """What is next needs more memory than there is room."""
    messages: tuple[ClaimedMessage, ...]


def claimed_message(parts: Sequence[Any]) -> ClaimedMessage:
    """One message of the claim script's reply."""
    tag, place, delivery, retries, history, raw, tokens = parts
    lines = [line for line in history.decode().split("\n") if line]  # an event may hold other separators
    return ClaimedMessage(
        tag.decode(),
        Place(place.decode()),
        int(delivery),
        int(retries),
        tuple(json.loads(line) for line in lines),
        raw,
        int(tokens),
    )
