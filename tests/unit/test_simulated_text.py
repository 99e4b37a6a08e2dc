"""What the simulated engine writes, as a pure function of the request."""

from typing import Any

import pytest

from producer.contract import FailureCode, GenerationRequest, SamplingOptions
from workers.engine.base import RequestRejected
from workers.engine.simulated_text import Written, prompt_tokens, refuse_contradictions, write

ROOM_TOKENS = 1_000


def written(prompt: str = "a prompt", room_tokens: int = ROOM_TOKENS, **options: Any) -> list[Written]:  # noqa: ANN401 - whatever the option takes
    """All choices for this prompt and these options."""
    return write(tuple(prompt.split()), SamplingOptions(**options).resolved(), room_tokens)


def text(prompt: str = "a prompt", **options: Any) -> str:  # noqa: ANN401 - whatever the option takes
    """The first choice's text."""
    return "".join(written(prompt, **options)[0].pieces)


def test_the_same_request_is_always_answered_with_the_same_text() -> None:
    """Nothing is random."""
    assert text(temperature=0.7, seed=3) == text(temperature=0.7, seed=3)


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"temperature": 0.7}, {"temperature": 0.8}),
        ({"temperature": 0.7, "seed": 1}, {"temperature": 0.7, "seed": 2}),
        ({"temperature": 0.7}, {"preset": "creative"}),
    ],
    ids=["temperature", "seed", "preset"],
)
def test_another_way_of_drawing_gives_another_text(options: dict[str, Any], other: dict[str, Any]) -> None:
    """Sampling options reach the text, so a test can tell when they got mixed up."""
    assert text(**options) != text(**other)


def test_another_prompt_gives_another_text() -> None:
    """Also when greedy."""
    assert text("one", temperature=0.0) != text("two", temperature=0.0)


def test_greedy_text_does_not_depend_on_options_that_only_draw() -> None:
    """Nothing is drawn at temperature 0."""
    assert text(temperature=0.0, top_p=0.5, seed=9) == text(temperature=0.0)


def test_a_shorter_answer_is_the_beginning_of_a_longer_one() -> None:
    """``max_tokens`` cuts, and does not change, the text."""
    short, long = (text(max_tokens=count, ignore_eos=True) for count in (5, 50))
    assert long.startswith(short)
    assert (len(short.split()), len(long.split())) == (5, 50)


def test_the_context_ends_an_answer_like_max_tokens_does() -> None:
    """Whichever comes first."""
    (choice,) = written(room_tokens=3, max_tokens=50, ignore_eos=True)
    assert (len(choice.pieces), choice.finish_reason) == (3, "length")


def test_some_answers_end_by_themselves() -> None:
    """Unless the end of text is ignored."""
    prompts = [f"prompt {number}" for number in range(50)]
    reasons = {written(prompt, max_tokens=200)[0].finish_reason for prompt in prompts}
    ignored = {written(prompt, max_tokens=200, ignore_eos=True)[0].finish_reason for prompt in prompts}
    assert reasons == {"stop", "length"}
    assert ignored == {"length"}


def test_no_answer_ends_by_itself_before_min_tokens() -> None:
    """The end of text may only be drawn afterwards."""
    lengths = [len(written(f"prompt {n}", max_tokens=200, min_tokens=60)[0].pieces) for n in range(50)]
    assert min(lengths) >= 60


def test_a_stop_string_cuts_the_text_in_the_middle_of_a_token() -> None:
    """The token counts, its text from the stop string on does not."""
    whole = text(max_tokens=30, ignore_eos=True)
    stop = whole[10:13]
    (choice,) = written(max_tokens=30, ignore_eos=True, stop=(stop,))
    assert "".join(choice.pieces) == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop"


def test_every_choice_of_a_job_is_another_text() -> None:
    """``n`` choices are drawn apart."""
    assert len({choice.pieces for choice in written(n=5, max_tokens=20, ignore_eos=True)}) == 5


def test_tokens_of_a_prompt_are_its_words() -> None:
    """Words, the words of all messages with their roles, or ids."""
    messages = [{"role": "user", "content": "be brief"}]
    assert prompt_tokens(GenerationRequest(model="m", prompt=" one  two ")) == ("one", "two")
    assert prompt_tokens(GenerationRequest.model_validate({"model": "m", "messages": messages})) == (
        "user",
        "be",
        "brief",
    )
    assert prompt_tokens(GenerationRequest(model="m", prompt_token_ids=(3, 4))) == ("3", "4")


def test_a_token_id_out_of_vocabulary_is_invalid() -> None:
    """As with vLLM."""
    with pytest.raises(RequestRejected, match="32000") as caught:
        prompt_tokens(GenerationRequest(model="m", prompt_token_ids=(32_000,)))
    assert caught.value.code is FailureCode.INVALID_REQUEST


@pytest.mark.parametrize("options", [{"min_tokens": 5, "max_tokens": 4}, {"temperature": 0.0, "n": 2}])
def test_options_that_contradict_each_other_are_invalid(options: dict[str, Any]) -> None:
    """What vLLM refuses, the simulated engine refuses."""
    with pytest.raises(RequestRejected):
        refuse_contradictions(SamplingOptions(**options).resolved())
