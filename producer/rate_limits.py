"""How much a key of the gateway may ask for a minute (``fleet:rate:<key id>``): ``rate_limit.lua`` counts it.

Two token buckets, one of requests and one of tokens. Each holds a minute's worth and is filled evenly: whoever was
quiet may ask for a minute's worth at once, and for what the limit says from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Final

from producer import keys
from producer.contract import GenerationRequest
from producer.errors import InvalidRequest
from producer.script import Script, ScriptRun

MINUTE_SECONDS: Final = 60.0
MOST_PER_MINUTE: Final = 1_000_000_000
BYTES_PER_TOKEN: Final = 4.0
"""Of a prompt whose tokens nobody has counted yet; as workers assume before they know better."""
ASSUMED_OUTPUT_TOKENS: Final = 512
"""Of a job that names no ``max_tokens``; likewise."""
RATE_LIMIT_SCRIPT: Final = Script.named("rate_limit")
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a key may ask for; None: any number."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and outputs together."""

    @property
    def are_none(self) -> bool:
        """Whether anything goes."""
        return self.requests_per_minute is None and self.tokens_per_minute is None

    def checked(self) -> "RateLimits":
        """The same.

        Raises:
            InvalidRequest: one of them is no limit.
        """
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            is_number = isinstance(limit, int) and not isinstance(limit, bool)
            if limit is not None and not (is_number and 1 <= limit <= MOST_PER_MINUTE):
                raise InvalidRequest(
                    f"{name}: a whole number from 1 to {MOST_PER_MINUTE:,}, or None for no limit; not {limit!r}"
                )
        return self


UNLIMITED: Final = RateLimits()


@dataclass(frozen=True, slots=True)
class Bucket:
    """One kind of what is limited, as it is at a moment."""

    limit: int
    """A minute."""
    missing: float
    """Of a full bucket; above the limit: owed."""

    @property
    def remaining(self) -> int:
        """How much may be asked for now."""
        return max(0, floor(self.limit - self.missing + _ROUNDING))

    @property
    def full_in_seconds(self) -> float:
        """When it is full again, if nothing is asked for until then."""
        return self.missing / self.limit * MINUTE_SECONDS

    def fits_in_seconds(self, cost: int) -> float:
        """When so much may be asked for; 0 is now."""
        return max(0.0, (self.missing + cost - self.limit) / self.limit * MINUTE_SECONDS)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a key has left after it was charged, or was not."""

    is_charged: bool
    requests: Bucket | None
    """None: not limited."""
    tokens: Bucket | None

    def fits_in_seconds(self, requests: int, tokens: int) -> int:
        """When to ask for so much again; whole seconds, at least 1."""
        asked = ((self.requests, requests), (self.tokens, tokens))
        return max(1, *(ceil(bucket.fits_in_seconds(cost)) for bucket, cost in asked if bucket is not None))


def estimated_tokens(request: GenerationRequest) -> int:
    """What a job may take, prompt and output, before anybody has looked at it: as much output as it allows."""
    ids, sampling = request.prompt_token_ids, request.sampling
    prompt_tokens = ceil(request.prompt_bytes / BYTES_PER_TOKEN) if ids is None else len(ids)
    return prompt_tokens + (sampling.max_tokens or ASSUMED_OUTPUT_TOKENS) * (sampling.n or 1)


def charge_run(key_id: str, limits: RateLimits, requests: int, tokens: int, *, correct: bool) -> ScriptRun:
    """The script run that charges so much; with ``correct`` whatever is there, and less than nothing is given back."""
    per_minute = ("" if limit is None else limit for limit in (limits.requests_per_minute, limits.tokens_per_minute))
    requests_limit, tokens_limit = per_minute
    how = "correct" if correct else "ask"
    return ScriptRun(RATE_LIMIT_SCRIPT, (keys.rate(key_id),), (how, requests_limit, requests, tokens_limit, tokens))


def read_standing(limits: RateLimits, reply: Sequence[Any]) -> Standing:
    """What the script answered."""
    is_charged, requests, tokens = reply
    return Standing(
        bool(is_charged), _bucket(limits.requests_per_minute, requests), _bucket(limits.tokens_per_minute, tokens)
    )


def _bucket(limit: int | None, missing: bytes) -> Bucket | None:
    return None if limit is None else Bucket(limit, float(missing))
