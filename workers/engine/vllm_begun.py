"""Going on with an answer that another attempt began: its tokens become the end of the prompt."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
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
HALF_CHARACTER: Final = "\N{REPLACEMENT CHARACTER}"
MOST_SEED: Final = 2**63


@dataclass(frozen=True, slots=True)
class GoingOn:
    """The prompt with the tokens behind it whose text was told."""

    prompt: "EngineInput"
    prompt_tokens: int
    """Of the prompt alone."""
    begun_token_ids: tuple[int, ...] = ()
    retold_tokens: int = 0
    """So many that were told after those said nothing yet, and are generated again."""


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
    longer = cast("EngineInput", fields | {"prompt_token_ids": [*ids, *told]})
    return GoingOn(longer, len(ids), told, len(begun.token_ids) - count)


async def without_begun(increments: AsyncGenerator[Increment, None], start: GoingOn) -> AsyncGenerator[Increment, None]:
    """The increments as if what was begun were no part of the prompt; the first says what it takes the place of."""
    count, retold_tokens = len(start.begun_token_ids), start.retold_tokens
    async with aclosing(increments):
        async for increment in increments:
            choices = increment.choices
            if retold_tokens and choices:
                choices, retold_tokens = (replace(choices[0], retold_tokens=retold_tokens),), 0
            size_tokens = increment.prompt_tokens - count
            cached_tokens = min(increment.cached_tokens, size_tokens)
            yield replace(increment, choices=choices, prompt_tokens=size_tokens, cached_tokens=cached_tokens)


def _told(llm: "AsyncLLM", tail: list[int], begun: Begun, *, skip_special_tokens: bool) -> tuple[int, ...]:
    tokenizer = cast("Any", llm.renderer.tokenizer)
    if tokenizer is None:
        raise CannotContinue("this engine has no tokenizer to compare with what was told")
    before = tokenizer.decode(tail, skip_special_tokens=skip_special_tokens)
    for dropped in range(min(HELD_BACK_TOKENS, len(begun.token_ids)) + 1):
        ids = begun.token_ids[: len(begun.token_ids) - dropped]
        text = tokenizer.decode([*tail, *ids], skip_special_tokens=skip_special_tokens)
        # After half a character vLLM would say the end of its prompt once more, with what comes first.
        if text == before + begun.text and not (ids and text.endswith(HALF_CHARACTER)):
            return ids
    raise CannotContinue("the tokens that were told do not say what was told")
