"""OpenAI's own client asks for tools, with the simulated engine: calls come back, streamed or not, and only once."""

import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated

USER: list[Any] = [{"role": "user", "content": "What is the weather in Ghent?"}]
ASKED: dict[str, Any] = {"model": "sim", "temperature": 0, "max_tokens": 200}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
NAMED: Any = {"type": "function", "function": {"name": "clock"}}
CALLS: dict[str, Any] = {"tools": [WEATHER], "metadata": {"simulate": "calls_tool"}}
"""Lets the simulated engine decide to call, after a few words."""


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """Answers at 50 tokens a second, and has a parser."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.02, max_num_seqs=8)
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 2.0, "engine.tool_call_parser": "simulated"}
    with fleet:
        yield fleet


@pytest.fixture
def address(fleet: RunningFleet, tmp_path: Path) -> Iterator[str]:
    """Of its gateway."""
    with running_gateway(fleet.redis_url, tmp_path) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    """Tries once."""
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def gathered(chunks: Iterable[ChatCompletionChunk]) -> tuple[str, list[Any], str | None]:
    """Text, calls and reason of a stream."""
    text, calls, reason = "", [], None
    for chunk in chunks:
        [choice] = chunk.choices
        text += choice.delta.content or ""
        calls += choice.delta.tool_calls or []
        reason = choice.finish_reason or reason
    return text, calls, reason


def test_a_model_decides_to_call_and_hears_the_answer(client: OpenAI) -> None:
    """The message goes back into the conversation as it came, with the tool's answer behind it."""
    create = client.chat.completions.create
    [choice] = create(messages=USER, **CALLS, **ASKED).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content
    assert "<call>" not in choice.message.content
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "x"})
    text, calls, reason = gathered(create(messages=USER, stream=True, **CALLS, **ASKED))
    assert (text, reason) == (choice.message.content, "tool_calls")
    assert [(one.index, one.type, one.function.name, one.function.arguments) for one in calls] == [
        (0, "function", "weather", call.function.arguments)
    ]
    answered: list[Any] = [*USER, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    [end] = create(messages=answered, tools=[WEATHER], **ASKED).choices
    assert (end.finish_reason, end.message.tool_calls) in (("stop", None), ("length", None))
    assert end.message.content


@pytest.mark.parametrize(
    ("choice", "name", "reason"), [("required", "weather", "tool_calls"), (NAMED, "clock", "stop")]
)
def test_a_call_that_must_be_comes_streamed_or_not(client: OpenAI, choice: Any, name: str, reason: str) -> None:  # noqa: ANN401 - a word or an object
    """With no text; OpenAI says ``stop`` where the caller had named the function."""
    asked: dict[str, Any] = ASKED | {"messages": USER, "tools": [WEATHER, CLOCK], "tool_choice": choice}
    [whole] = client.chat.completions.create(**asked).choices
    assert (whole.message.content, whole.finish_reason) == (None, reason)
    [call] = whole.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == name
    text, [streamed], streamed_reason = gathered(client.chat.completions.create(**asked, stream=True))
    assert (text, streamed.function.name, streamed_reason) == ("", name, reason)
    assert json.loads(streamed.function.arguments) == json.loads(call.function.arguments)


def test_without_a_call_tools_change_nothing_but_the_prompt(client: OpenAI) -> None:
    """The model need not call; told not to, it does not."""
    create = client.chat.completions.create
    [decided] = create(messages=USER, tools=[WEATHER], **ASKED).choices
    [forbidden] = create(messages=USER, tool_choice="none", **CALLS, **ASKED).choices
    for choice in (decided, forbidden):
        assert choice.message.tool_calls is None
        assert choice.message.content
        assert choice.finish_reason != "tool_calls"


def test_when_the_worker_dies_the_call_still_comes_and_once(client: OpenAI, fleet: RunningFleet) -> None:
    """What was told of the text is not told again, and nothing of the call's markup ever is."""
    asked = ASKED | CALLS | {"messages": USER}
    [whole] = client.chat.completions.create(**asked).choices
    text, calls, has_killed = "", [], False
    for chunk in client.chat.completions.create(stream=True, **asked):
        text += chunk.choices[0].delta.content or ""
        calls += chunk.choices[0].delta.tool_calls or []
        if text and not has_killed:
            has_killed = True
            for process in fleet.worker_processes():
                process.send_signal(signal.SIGKILL)
    assert has_killed
    assert text == whole.message.content
    [call] = calls
    assert whole.message.tool_calls is not None
    assert call.function.arguments == whole.message.tool_calls[0].function.arguments  # type: ignore[union-attr]


def test_a_jobs_events_and_result_have_the_calls(client: OpenAI, address: str) -> None:
    """The fleet's own API tells them with the last delta, and keeps them in the result."""
    job = {"model": "sim", "messages": USER, "tools": [CLOCK], "tool_choice": "required", "stream": True}
    submitted = httpx.post(f"{address}/v1/jobs", json=job, timeout=60).json()["id"]
    lines = httpx.get(f"{address}/v1/jobs/{submitted}/events", timeout=30).text.splitlines()
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    [delta] = [one for event in told[:-1] for one in event["choices"]]
    assert (delta["text"], delta["tool_calls"][0]["function"]) == ("", {"name": "clock", "arguments": "{}"})
    assert told[-1]["choices"][0]["tool_calls"] == delta["tool_calls"]
    assert client.models.list().data


def test_what_does_not_go_together_is_refused_by_name(client: OpenAI) -> None:
    """Before it is queued."""
    create = client.chat.completions.create
    schema: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls needs tools"),
        ({"tools": [WEATHER], "tool_choice": NAMED}, "no tool has the name 'clock'"),
        ({"tools": [WEATHER, WEATHER]}, "two functions have the name 'weather'"),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [WEATHER], "response_format": schema}, "response_format does not go with tools"),
        ({"functions": [WEATHER["function"]]}, "unsupported parameter: 'functions'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "1"}]}, "does not go with role 'user'"),
        ({"messages": [{"role": "assistant"}]}, "content is missing"),
    ]
    for fields, words in refused:
        with pytest.raises(openai.BadRequestError, match=words):
            create(**ASKED | {"messages": USER} | fields)


def test_a_worker_without_a_parser_refuses_to_let_the_model_decide(redis_url: str, tmp_path: Path) -> None:
    """And names the setting; calls that are asked for need none."""
    with (
        simulated(redis_url, tmp_path),
        running_gateway(redis_url, tmp_path) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        asked: dict[str, Any] = ASKED | {"messages": USER, "tools": [WEATHER]}
        for is_streamed in (False, True):
            with pytest.raises(openai.BadRequestError, match=r"engine\.tool_call_parser"):
                client.chat.completions.create(**asked, stream=is_streamed)
        [choice] = client.chat.completions.create(**asked, tool_choice="required").choices
        assert choice.message.tool_calls
