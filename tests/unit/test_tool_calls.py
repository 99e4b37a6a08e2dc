"""What a model writes, split into text and tool calls: nothing of a call is told as text, and nothing is lost."""

import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest

from producer.contract import FailureCode, GenerationRequest, TokenLogprob
from workers.engine.base import Begun, ChoiceIncrement, Increment, RequestRejected
from workers.engine.simulated_tools import MarkupReader, least
from workers.engine.tool_calls import ForcedReader, ToolSplitter, forced_schema

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
CALL = '<call>{"name": "weather", "arguments": {"city": "Ghent"}}</call>'


def asked(**fields: Any) -> GenerationRequest:  # noqa: ANN401 - whatever the field takes
    """A chat with two tools."""
    return GenerationRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": [WEATHER, CLOCK]} | fields
    )


async def told(
    splitter: ToolSplitter, pieces: list[str], reason: str = "stop", index: int = 0
) -> list[ChoiceIncrement]:
    """What is passed on when the model writes these, a token each."""

    async def written() -> AsyncGenerator[Increment, None]:
        for at, piece in enumerate(pieces):
            finish = reason if at == len(pieces) - 1 else None
            logprob = TokenLogprob(token=piece, token_id=at, logprob=-1.0)
            yield Increment((ChoiceIncrement(index, piece, 1, finish, (logprob,), (at,)),), 3)

    return [choice async for increment in splitter.split(written()) for choice in increment.choices]


async def test_text_is_passed_on_and_a_call_comes_whole_at_the_end() -> None:
    """What may become a call waits; every token is told once, with its log probability."""
    pieces = ["Let", " me", " <", "3", " look", ".", " <ca", "ll>", *CALL[6:], ""]
    found = await told(ToolSplitter(asked(), MarkupReader), pieces)
    *texts, last = found
    assert [one.text for one in texts] == ["Let", " me", " <3", " look", "."]
    assert (last.text, last.finish_reason) == (" ", "tool_calls")
    assert last.tool_calls is not None
    [call] = last.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ghent"})
    assert all(one.tool_calls is None for one in texts)
    assert [token for one in found for token in one.token_ids] == list(range(len(pieces)))
    assert sum(one.token_count for one in found) == len(pieces)
    assert [logprob.token for one in found for logprob in one.logprobs or ()] == pieces


async def test_what_only_looked_like_a_call_is_text() -> None:
    """At the end, when nothing can follow any more."""
    found = await told(ToolSplitter(asked(), MarkupReader), ["a", " <ca", ""])
    assert [(one.text, one.finish_reason, one.tool_calls) for one in found] == [
        ("a", None, None),
        (" <ca", "stop", None),
    ]


async def test_another_attempt_goes_on_from_what_was_passed_on() -> None:
    """It needs to know no more than the text: what was kept back is written again."""
    begun = Begun((0, 1), "Let me")
    found = await told(ToolSplitter(asked(), MarkupReader, begun), [" look", *CALL, ""])
    assert [one.text for one in found] == [" look", ""]
    assert found[-1].tool_calls is not None
    assert found[-1].finish_reason == "tool_calls"


async def test_choices_are_read_apart() -> None:
    """Each by a reader of its own."""
    splitter = ToolSplitter(asked(), MarkupReader)
    first, second = await told(splitter, [CALL]), await told(splitter, ["none"], index=1)
    assert first[-1].tool_calls is not None
    assert (second[-1].text, second[-1].tool_calls) == ("none", None)


async def test_one_call_at_most_where_the_caller_said_so() -> None:
    """The first."""
    for parallel, count in ((None, 2), (True, 2), (False, 1)):
        splitter = ToolSplitter(asked(parallel_tool_calls=parallel), MarkupReader)
        [choice] = await told(splitter, [CALL + CALL])
        assert len(choice.tool_calls or ()) == count


@pytest.mark.parametrize(
    ("choice", "written", "reason", "calls", "finish_reason"),
    [
        ("required", '[{"name": "clock", "parameters": {}}]', "stop", [("clock", "{}")], "tool_calls"),
        ("required", '[{"name": "clock", "param', "length", [], "length"),
        ("required", '["clock"]', "stop", [], "stop"),
        ("weather", '{"city": "Ghent"}', "stop", [("weather", '{"city": "Ghent"}')], "stop"),
        ("weather", '{"city": "Gh', "length", [("weather", '{"city": "Gh')], "length"),
        ("weather", "", "abort", [], "abort"),
    ],
)
async def test_a_forced_answer_is_calls_and_no_text(
    choice: str, written: str, reason: str, calls: list[tuple[str, str]], finish_reason: str
) -> None:
    """Nothing is told before the end, and how it ended is said as OpenAI and vLLM do."""
    named = {"type": "function", "function": {"name": choice}}
    request = asked(tool_choice=choice if choice == "required" else named)
    [found] = await told(ToolSplitter(request, partial(ForcedReader, request)), [*written, ""], reason)
    assert (found.text, found.finish_reason) == ("", finish_reason)
    assert [(one.function.name, one.function.arguments) for one in found.tool_calls or ()] == calls


async def test_half_a_character_in_arguments_stays_as_json_names_it() -> None:
    """A lone surrogate has no UTF-8, and would break whoever tells it."""
    request = asked(tool_choice="required")
    written = '[{"name": "weather", "parameters": {"city": "\\ud800"}}]'
    [found] = await told(ToolSplitter(request, partial(ForcedReader, request)), [written])
    assert found.tool_calls is not None
    assert found.tool_calls[0].function.arguments == '{"city": "\\ud800"}'


def test_a_forced_answers_schema_is_vllms() -> None:
    """A list of calls, or the named function's arguments; definitions move to where references look for them."""
    defined = {"$defs": {"city": {"type": "string"}}, "type": "object", "properties": {"c": {"$ref": "#/$defs/city"}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": defined}}
    schema = forced_schema(asked(tools=[tool, CLOCK], tool_choice="required", parallel_tool_calls=False))
    assert schema["$defs"] == {"city": {"type": "string"}}
    assert [one["properties"]["name"]["enum"] for one in schema["items"]["anyOf"]] == [["look"], ["clock"]]
    assert "$defs" not in schema["items"]["anyOf"][0]["properties"]["parameters"]
    assert (schema["minItems"], schema["maxItems"]) == (1, 1)
    named = {"type": "function", "function": {"name": "look"}}
    assert forced_schema(asked(tools=[tool], tool_choice=named)) == defined


def test_two_meanings_of_one_definition_are_refused() -> None:
    """Together they could not be had; the sentence says what to do."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"$defs": {"x": {"type": kind}}}}}
        for name, kind in (("a", "string"), ("b", "integer"))
    ]
    with pytest.raises(RequestRejected, match="give one another name") as caught:
        forced_schema(asked(tools=tools, tool_choice="required"))
    assert caught.value.code is FailureCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}, {"a": "x", "b": 0}),
        ({"type": "object", "properties": {"a": {}, "b": {"const": 3}}, "required": ["b"]}, {"b": 3}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"enum": ["red", "green"]}, "red"),
        ({"anyOf": [{"type": "number", "minimum": 2}, {"type": "null"}]}, 2),
        ({"$ref": "#/$defs/d"}, {"y": "x"}),
        ({}, None),
    ],
)
def test_the_simulated_engine_writes_the_least_of_a_schema(schema: dict[str, Any], value: object) -> None:
    """What each kind of schema asks for, and no more."""
    assert least(schema, {"d": {"type": "object", "properties": {"y": {"type": "string"}}}}) == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    """Somewhere."""
    loop = {"type": "object", "properties": {"next": {"$ref": "#/$defs/loop"}}}
    assert "next" in json.dumps(least(loop, {"loop": loop}))
