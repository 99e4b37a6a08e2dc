"""From what vLLM puts out to increments."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from producer.contract import TokenLogprob
from workers.engine.base import ChoiceIncrement, GenerationFailed, Increment

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput, RequestOutput

GENERATED_TOKENS: Final = "vllm:generation_tokens"
"""vLLM's counter of them, raised with every step."""
LEAST_LOGPROB: Final = -9999.0
"""Stands for minus infinity, which JSON has no word for."""


def increment_of(output: "RequestOutput", alternatives: int, *, with_ids: bool) -> Increment:
    """What is new in ``output``, with up to ``alternatives`` likeliest tokens beside each drawn one.

    Raises:
        GenerationFailed: vLLM gave up on this request.
    """
    if any(choice.finish_reason == "error" for choice in output.outputs):
        raise GenerationFailed("vLLM ended this request with an internal error")
    metrics = output.metrics
    return Increment(
        choices=tuple(_choice(choice, alternatives, with_ids=with_ids) for choice in output.outputs),
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        first_token_seconds=(metrics.first_token_latency or None) if metrics is not None else None,
    )


def generated_tokens() -> int:
    """What vLLM's own counter says, over all that this process has generated."""
    from prometheus_client import REGISTRY

    families = [family for family in REGISTRY.collect() if family.name == GENERATED_TOKENS]
    return int(sum(sample.value for family in families for sample in family.samples if sample.name.endswith("_total")))


def _choice(choice: "CompletionOutput", alternatives: int, *, with_ids: bool) -> ChoiceIncrement:
    logprobs = None
    if choice.logprobs is not None:
        logprobs = tuple(
            _drawn(token_id, position, alternatives)
            for token_id, position in zip(choice.token_ids, choice.logprobs, strict=True)
            if position is not None
        )
    return ChoiceIncrement(
        index=choice.index,
        text=choice.text,
        token_count=len(choice.token_ids),
        finish_reason=choice.finish_reason,
        logprobs=logprobs,
        token_ids=tuple(choice.token_ids) if with_ids else (),
    )


def _drawn(token_id: int, position: Mapping[int, "Logprob"], alternatives: int) -> TokenLogprob:
    # The drawn token stands among the likeliest ones too, and is listed when it is not one of them.
    ranked = sorted((entry.rank or 0, other) for other, entry in position.items())
    top = tuple(_token(other, position[other]) for rank, other in ranked if rank <= alternatives)
    return _token(token_id, position[token_id], top)


def _token(token_id: int, entry: "Logprob", top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(
        token=entry.decoded_token or "", token_id=token_id, logprob=max(entry.logprob, LEAST_LOGPROB), top=top
    )
