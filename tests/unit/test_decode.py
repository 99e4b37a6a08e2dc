"""Step 1 of answering: task arguments to a request, with preceding results of a canvas worked in."""

import pytest

from producer.contract import FailureCode
from workers.engine.base import RequestRejected
from workers.inference.decode import decode

REQUEST = {"model": "m", "prompt": "hello"}
RESULT = {
    "id": "1",
    "model": "m",
    "choices": [{"index": 0, "text": "one", "token_count": 1, "finish_reason": "stop"}],
}


def test_a_request_alone_is_taken_as_it_is() -> None:
    """The ordinary case."""
    assert decode([REQUEST]).prompt == "hello"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Say {{previous}} again", "Say one again"),
        ("Shorten:", "Shorten:\n\none"),
        ("{{previous}} and {{previous}}", "one and one"),
    ],
)
def test_a_preceding_result_goes_where_the_prompt_says_or_after_it(prompt: str, expected: str) -> None:
    """chain(generate, generate) gives the first one's result as the first argument."""
    assert decode([RESULT, {"model": "m", "prompt": prompt}]).prompt == expected


def test_a_chord_joins_its_members_in_order() -> None:
    """A chord's body gets the list of its members' results."""
    second = RESULT | {"choices": [{"index": 0, "text": "two"}]}
    assert decode([[RESULT, second], REQUEST]).prompt == "hello\n\none\n\ntwo"


def test_a_preceding_result_goes_into_the_last_message() -> None:
    """Chat requests are chained too."""
    messages = [{"role": "system", "content": "be short"}, {"role": "user", "content": "Shorten: {{previous}}"}]
    decoded = decode([RESULT, {"model": "m", "messages": messages}])
    assert decoded.messages is not None
    assert [message.content for message in decoded.messages] == ["be short", "Shorten: one"]


def test_a_preceding_result_alone_is_the_prompt_for_the_same_model() -> None:
    """chain(generate.s(request), generate.s())."""
    decoded = decode([RESULT])
    assert (decoded.model, decoded.prompt) == ("m", "one")


def test_the_text_of_another_task_may_precede() -> None:
    """A chain may begin with anybody's task that returns text."""
    assert decode(["words", REQUEST]).prompt == "hello\n\nwords"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "takes one request"),
        ([RESULT, RESULT, REQUEST], "takes one request"),
        ("text", "takes one request"),
        (["text"], "must be an object, not str"),
        ([7, REQUEST], "neither text nor a generation result"),
        ([{"model": "m", "prompt": "x", "max_tokens": 3}], "unknown field 'max_tokens'"),
        ([{"model": "m", "prompt": "x", "sampling": {"max_tokens": -1}}], "sampling.max_tokens"),
        ([RESULT, {"model": "m", "prompt_token_ids": [1]}], "needs a prompt or messages"),
        ([{"model": "m", "prompt": "x" * (4 * 1024 * 1024 + 1)}], "4,194,304"),
    ],
)
def test_arguments_that_are_no_request_are_refused_with_what_is_wrong(
    arguments: list[object] | str, complaint: str
) -> None:
    """Every refusal is invalid_request and says which part."""
    with pytest.raises(RequestRejected, match="(?s)" + complaint.replace(".", r"\.")) as refused:
        decode(arguments)
    assert refused.value.code is FailureCode.INVALID_REQUEST


def test_a_turn_that_no_producer_made_whole_is_refused() -> None:
    """Without its conversation's history the answer would be one to something else."""
    with pytest.raises(RequestRejected, match="only a producer's submit") as refused:
        decode([{"model": "m", "messages": [{"role": "user", "content": "x"}], "conversation_id": "c"}])
    assert refused.value.code is FailureCode.INVALID_REQUEST
