"""What the gateway makes of an answer, in OpenAI's words."""

from typing import Any

import pytest

from producer.contract import Choice, GenerationResult, Timings, TokenLogprob, Usage
from producer.gateway.openai_responses import Chunks, Head, whole
from producer.stream_reading import ChoiceDelta


def token(text: str, token_id: int, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    """A drawn one, with the likeliest beside it."""
    return TokenLogprob(token=text, token_id=token_id, logprob=logprob, top=top)


SUN, SEA = token(" sun", 1, -0.1), token(" sea", 2, -0.2)
OUTSIDE = token(" moon", 9, -4.0, SUN, SEA)
"""Drawn, and not among the likeliest two."""
AMONG = token(" sea", 2, -0.2, SUN, SEA, token(" sun", 3, -0.3))
"""Drawn, and the second of three, of which two have one text."""
ALONE = token(" tide", 4, -0.5)
"""Drawn where no likeliest ones were asked for."""
DRAWN = (OUTSIDE, AMONG, ALONE)


def head(*, is_chat: bool) -> Head:
    """Of any answer."""
    return Head("j", "m", 0, is_chat=is_chat)


def answered() -> GenerationResult:
    """One choice of these tokens."""
    text = "".join(one.token for one in DRAWN)
    choice = Choice(index=0, text=text, token_count=3, finish_reason="length", logprobs=DRAWN)
    usage = Usage(prompt_tokens=1, completion_tokens=3)
    return GenerationResult(
        id="j", model="m", choices=(choice,), usage=usage, timings=Timings(total_seconds=1), worker="w"
    )


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_completions_likeliest_tokens_have_the_drawn_one_among_them(*, is_streamed: bool) -> None:
    """So there may be one more than asked for, as OpenAI has it; also where none was asked for."""
    if is_streamed:
        chunks = Chunks(head(is_chat=False), with_usage=False)
        answer: dict[str, Any] = chunks.deltas([ChoiceDelta(0, answered().text, "length", DRAWN)])
    else:
        answer = whole(head(is_chat=False), answered())
    told = answer["choices"][0]["logprobs"]
    assert told["top_logprobs"] == [
        {" sun": -0.1, " sea": -0.2, " moon": -4.0},
        {" sun": -0.1, " sea": -0.2},
        {" tide": -0.5},
    ]
    assert told["tokens"] == [" moon", " sea", " tide"]
    assert told["token_logprobs"] == [-4.0, -0.2, -0.5]
    assert told["text_offset"] == [0, 5, 9]


def test_a_chats_likeliest_tokens_are_those_that_were_asked_for() -> None:
    """The drawn one stands beside them, and is none of them where it is not as likely."""
    content = whole(head(is_chat=True), answered())["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in content] == [" moon", " sea", " tide"]
    assert [one["token"] for one in content[0]["top_logprobs"]] == [" sun", " sea"]
    assert content[2]["top_logprobs"] == []
