"""Going on with an answer that another attempt began, on every engine."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.contracts.asking import answer, attempt, increments, request, streamed
from workers.engine.base import Begun, CannotContinue, Engine, Increment
from workers.engine.simulated import SimulatedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")


def told(pieces: Sequence[Increment]) -> Begun:
    """What an attempt that yielded these has told."""
    choices = [choice for piece in pieces for choice in piece.choices]
    ids = tuple(token_id for choice in choices for token_id in choice.token_ids)
    return Begun(ids, "".join(choice.text for choice in choices))


async def test_an_answer_goes_on_where_another_attempt_ended(engine: Engine) -> None:
    """After any number of its tokens, the last included: together it is what one attempt says."""
    wanted = streamed(request("go on", max_tokens=12, ignore_eos=True, temperature=0.0, logprobs=0))
    pieces = [piece async for piece in increments(engine, wanted)]
    text = told(pieces).text
    for count in (1, 5, len(pieces) - 1):
        one = replace(attempt(wanted), begun=told(pieces[:count]))
        rest = [piece async for piece in engine.generate(one)]
        assert told(pieces[:count]).text + told(rest).text == text
        assert rest[-1].choices[0].finish_reason == "length"
        assert rest[-1].prompt_tokens == pieces[-1].prompt_tokens
        assert sum(len(choice.logprobs or ()) for piece in rest for choice in piece.choices) == len(
            told(rest).token_ids
        )
    whole_answer = replace(attempt(wanted), begun=told(pieces))
    (end,) = [piece async for piece in engine.generate(whole_answer)]
    assert (end.choices[0].text, end.choices[0].finish_reason) == ("", "length")
    assert end.prompt_tokens == pieces[-1].prompt_tokens


async def test_tokens_whose_text_was_held_back_are_counted_once(engine: Engine) -> None:
    """Told without their text, which may become a stop string: they are generated again, in their own place."""
    options = {"max_tokens": 40, "ignore_eos": True, "temperature": 0.0, "logprobs": 0, "stop": ["held back"]}
    wanted = streamed(request("go on", **options))
    pieces = [piece async for piece in increments(engine, wanted)]
    whole, retold = told(pieces), set()
    for count in range(1, len(pieces)):
        begun = told(pieces[:count])
        try:
            rest = [piece async for piece in engine.generate(replace(attempt(wanted), begun=begun))]
        except CannotContinue:
            continue  # the end of what was told is in the middle of a token
        choices = [choice for piece in rest for choice in piece.choices]
        void, *later = [choice.retold_tokens for choice in choices]
        assert (begun.text + told(rest).text, any(later)) == (whole.text, False)
        assert begun.token_ids[: len(begun.token_ids) - void] + told(rest).token_ids == whole.token_ids
        assert sum(choice.token_count for choice in choices) == len(told(rest).token_ids)
        retold.add(void)
    assert max(retold) > 0 or isinstance(engine, SimulatedEngine)  # which holds nothing back


async def test_what_was_not_told_by_its_tokens_is_not_gone_on_with(engine: Engine) -> None:
    """Better begin anew than tell two answers as one."""
    wanted = streamed(request("go on", max_tokens=12, ignore_eos=True, temperature=0.0))
    one = replace(attempt(wanted), begun=Begun((1, 2, 3), "nothing that these say"))
    with pytest.raises(CannotContinue):
        await anext(engine.generate(one))
    assert (await answer(engine, request("short", max_tokens=3, ignore_eos=True))).token_count == 3
