"""What the queue is told of a job that is more than first come, first served: ``flows.lua`` acts on it."""

import hashlib
from typing import Final
from urllib.parse import quote

from producer.contract import GenerationRequest

PREFIX_CHARACTERS: Final = 1024
"""Prompts that agree in so many characters count as beginning alike; shorter ones are not worth sorting."""
_DIGITS: Final = 16
"""Hexadecimal, of a prefix's name."""


def flow_of(request: GenerationRequest) -> dict[str, str] | None:
    """Tenant, size, deadline and prefix of the job; None when it has neither tenant nor deadline nor prefix."""
    prefix = prefix_of(request)
    if request.tenant is None and request.deadline is None and not prefix:
        return None
    sampling = request.sampling
    output_tokens = "" if sampling.max_tokens is None else str(sampling.max_tokens * (sampling.n or 1))
    ids = request.prompt_token_ids
    return {
        "tenant": escaped_tenant(request.tenant),
        "prompt": str(request.prompt_bytes) if ids is None else f"t{len(ids)}",
        "output": output_tokens,
        # One that passed before 1970 is as passed as any; the scripts know no negative moments.
        "deadline": "" if request.deadline is None else f"{max(0.0, request.deadline.timestamp()):.6f}",
        "prefix": prefix,
    }


def escaped_tenant(tenant: str | None) -> str:
    """A tenant's name in Redis keys and members: no tenant can choose one that reaches into another's."""
    return quote(tenant or "", safe="", errors="surrogatepass")


def prefix_of(request: GenerationRequest) -> str:
    """What jobs have in common whose prompts begin alike: a few hexadecimal digits, or nothing.

    That is ``prompt_cache_key`` where the caller gave one, and otherwise the first :data:`PREFIX_CHARACTERS` characters
    of the prompt or of the first message.
    """
    if request.prompt_cache_key is not None:
        return _digest(f"key {request.prompt_cache_key}")
    text = request.prompt or (request.messages[0].content if request.messages else "") or ""
    # What one adapter has computed serves no other.
    adapter = "" if request.lora is None else f"{request.lora}\0"
    return _digest(f"text {adapter}{text[:PREFIX_CHARACTERS]}") if len(text) >= PREFIX_CHARACTERS else ""


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:_DIGITS]
