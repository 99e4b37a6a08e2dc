"""Jobs with prompts of 600 bytes, each like no other: plain ones, and such as wait in flows."""

import random
from collections.abc import Iterator

from producer import Producer
from producer.contract import GenerationRequest, SamplingOptions

MODEL = "sim"
PROMPT_BYTES = 600
FLOWS = 100
"""Tenants, or documents."""
KINDS = ("plain", "tenants", "prefixes")


def prompt(number: int) -> str:
    """600 bytes, too short to be looked at for a prefix that others share."""
    words = " ".join(f"word{number}x{place}" for place in range(PROMPT_BYTES))
    return words[:PROMPT_BYTES]


def requests(kind: str, count: int, output_tokens: int = 1) -> Iterator[GenerationRequest]:
    """So many jobs of one of :data:`KINDS`."""
    sampling = SamplingOptions(max_tokens=output_tokens, ignore_eos=True)
    for number in range(count):
        yield GenerationRequest(
            model=MODEL,
            prompt=prompt(number),
            sampling=sampling,
            tenant=f"tenant-{number % FLOWS}" if kind == "tenants" else None,
            prompt_cache_key=f"document-{number % FLOWS}" if kind == "prefixes" else None,
        )


def slow_requests(count: int, mean_seconds: float, output_tokens: int) -> Iterator[GenerationRequest]:
    """Jobs that hold their slot for a time drawn uniformly from half to one and a half of ``mean_seconds``."""
    draw = random.Random(count)  # noqa: S311 - no secret
    for request in requests("plain", count, output_tokens):
        seconds = draw.uniform(0.5, 1.5) * mean_seconds
        yield request.model_copy(update={"metadata": {"simulate": f"slow:{seconds:.4f}"}})


def submit(producer: Producer, kind: str, count: int, output_tokens: int = 1) -> list[str]:
    """Queue them; their ids."""
    outcomes = producer.submit_many(requests(kind, count, output_tokens))
    return [outcome.unwrap().job_id for outcome in outcomes]
