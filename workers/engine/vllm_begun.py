"""Going on with an answer that another attempt began: its tokens become the end of the prompt."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from workers.engine.base import Begun, CannotContinue, Increment

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

TAIL_TOKENS: Final = 8
"""Prompt tokens that the first token's text may depend on (a space, half a character)."""
HELD_BACK_TOKENS: Final = 64
"""At most so many tokens at the end may have said nothing yet: half characters, what may become a stop string."""
MOST_SEED: Final = 2**63


@dataclass(frozen=True, slots=True)
class GoingOn:
    """The prompt with the tokens behind it whose text was told."""

    prompt: "EngineInput"
    prompt_tokens: int
    """Of the prompt alone."""
    begun_token_ids: tuple[int, ...]


def with_begun(llm: "AsyncLLM", prompt: "EngineInput", params: "SamplingParams", begun: Begun) -> GoingOn:
    """Put what was told behind the prompt; changes ``params`` to fit.

    A seeded job draws from another seed from there on: the same one would repeat the numbers that it began with.

    Raises:
        CannotContinue: no number of its tokens says what was told.
    """
    fields = cast("dict[str, Any]", prompt)
    ids = list(fields.get("prompt_token_ids") or ())
    told = _told(llm, ids[-TAIL_TOKENS:], begun, skip_special_tokens=params.skip_special_tokens)
    count = len(told)
    params.max_tokens = min(params.max_tokens or MOST_SEED, llm.model_config.max_model_len - len(ids)) - count
    params.min_tokens = max(0, params.min_tokens - count)
    if params.seed is not None:
        params.seed = (params.seed + count) % MOST_SEED
    return GoingOn(cast("EngineInput", fields | {"prompt_token_ids": [*ids, *told]}), len(ids), told)


def without_begun(increment: Increment, count: int) -> Increment:
    """The increment as if those tokens were no part of the prompt."""
    size_tokens = increment.prompt_tokens - count
    return replace(increment, prompt_tokens=size_tokens, cached_tokens=min(increment.cached_tokens, size_tokens))


def _told(llm: "AsyncLLM", tail: list[int], begun: Begun, *, skip_special_tokens: bool) -> tuple[int, ...]:
    tokenizer = cast("Any", llm.renderer.tokenizer)
    if tokenizer is None:
        raise CannotContinue("this engine has no tokenizer to compare with what was told")
    before = tokenizer.decode(tail, skip_special_tokens=skip_special_tokens)
    for dropped in range(min(HELD_BACK_TOKENS, len(begun.token_ids)) + 1):
        ids = begun.token_ids[: len(begun.token_ids) - dropped]
        if tokenizer.decode([*tail, *ids], skip_special_tokens=skip_special_tokens) == before + begun.text:
            return ids
    raise CannotContinue("the tokens that were told do not say what was told")
