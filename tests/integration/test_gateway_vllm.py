"""OpenAI's own clients, sync and async, against the gateway with the real engine behind it."""

import inspect
import json
import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from producer.jobs import Submission
from producer.rate_limits import UNLIMITED, RateLimits
from tests.gateways import running_gateway
from tests.running import VLLM_OPTIONS, RunningFleet
from tests.waiting import eventually
from workers.models.tiny import make_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

USER: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why queues?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "boolean"}},
    "required": ["answer"],
    "additionalProperties": False,
}
PROMPTS = ["Once upon a time", "Why queues?", "The moon"]
OTHERS: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True}
COLOUR: dict[str, Any] = {"enum": [{"colour": "red"}, {"colour": "green"}]}
"""Written out, or random weights would write spaces for ever wherever JSON allows one."""


@pytest.fixture(scope="module")
def fleet(own_redis_url: str, own_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A worker with vLLM that calls tools."""
    model = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    options |= {
        "engine.options.max_model_len": 2048,
        "engine.tool_call_parser": "hermes",
        "engine.options.structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "worker.lease_seconds": 2.0,
    }
    with RunningFleet(own_redis_url, own_folder, str(model), options) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def address(fleet: RunningFleet, own_folder: Path) -> Iterator[str]:
    """Of a gateway that asks for keys."""
    with running_gateway(fleet.redis_url, own_folder, "--require-keys") as address:
        yield f"{address}/v1"


def new_key(fleet: RunningFleet, address: str, limits: RateLimits = UNLIMITED) -> str:
    """A tenant's key that opens the gateway already: it looks for new ones now and then."""
    with fleet.producer() as producer:
        key = producer.create_key("acme", limits=limits)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=60) as asking:
        eventually(
            lambda: asking.get(f"{address}/models").status_code == httpx.codes.OK, seconds=60, what="the key opens"
        )
    return key


@pytest.fixture(scope="module")
def key(fleet: RunningFleet, address: str) -> str:
    """Without limits."""
    return new_key(fleet, address)


@pytest.fixture
def client(address: str, key: str) -> Iterator[OpenAI]:
    """Tries once: a test is not to hide what went wrong the first time."""
    with OpenAI(base_url=address, api_key=key, max_retries=0) as client:
        yield client


@dataclass(frozen=True)
class Asker:
    """Either of OpenAI's clients, so that a test is one for both."""

    client: OpenAI | AsyncOpenAI

    async def ask(self, method: str = "chat.completions.create", **asked: Any) -> Any:  # noqa: ANN401 - the client's
        """What this method of the client returns; of a stream, the list of its chunks."""
        answer = attrgetter(method)(self.client)(**asked)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, AsyncStream):
            return [chunk async for chunk in answer]
        return list(answer) if isinstance(answer, Stream) else answer

    def with_key(self, key: str) -> "Asker":
        """The same for the owner of another key."""
        return Asker(self.client.with_options(api_key=key))


@pytest.fixture(params=["sync", "async"])
async def asker(request: pytest.FixtureRequest, address: str, key: str) -> AsyncIterator[Asker]:
    """Each test that takes it runs with both clients."""
    if request.param == "sync":
        with OpenAI(base_url=address, api_key=key, max_retries=0) as client:
            yield Asker(client)
    else:
        async with AsyncOpenAI(base_url=address, api_key=key, max_retries=0) as async_client:
            yield Asker(async_client)


def calls_tools(client: OpenAI) -> None:
    """Forced calls, whose messages go back into the conversation; and a model that may decide, streamed or not."""
    create = client.chat.completions.create
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0}
    paint: Any = {"type": "function", "function": {"name": "paint", "parameters": COLOUR}}
    named: Any = {"type": "function", "function": {"name": "paint"}}
    tools: dict[str, Any] = {"tools": [paint], "parallel_tool_calls": False, "max_tokens": 100}
    for tool_choice, reason in (("required", "tool_calls"), (named, "stop")):
        [called] = create(**asked | tools, tool_choice=tool_choice).choices
        [call] = called.message.tool_calls or []
        assert json.loads(call.function.arguments)["colour"] in ("red", "green")
        assert (called.message.content, called.finish_reason) == (None, reason)
        chunks = list(create(**asked | tools, tool_choice=tool_choice, stream=True))
        assert not any(chunk.choices[0].delta.content for chunk in chunks)
        [streamed] = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
        assert (streamed.function.name, streamed.function.arguments) == ("paint", call.function.arguments)
        assert chunks[-1].choices[0].finish_reason == reason
    answered: list[Any] = [*USER, called.message, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    [decided] = create(**asked | tools | {"messages": answered}).choices
    told = [
        chunk.choices[0].delta.content or "" for chunk in create(**asked | tools | {"messages": answered}, stream=True)
    ]
    assert "".join(told) == decided.message.content
    # A busy machine sends what came meanwhile as one piece.
    assert len([piece for piece in told if piece]) > 1


def test_the_real_engine_serves_openais_client(client: OpenAI) -> None:
    """Chats by the model's own template, completions, streams, schemas, seeds, logprobs, conversations, refusals."""
    create = client.chat.completions.create
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0, "max_tokens": 24}
    whole = create(**asked, logprobs=True, top_logprobs=3)
    [choice] = whole.choices
    assert choice.logprobs is not None
    assert len(choice.logprobs.content or ()) == (whole.usage.completion_tokens if whole.usage else None)
    chunks = list(create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason

    schema: Any = {"type": "json_schema", "json_schema": {"name": "yes-or-no", "schema": SCHEMA, "strict": True}}
    shaped = create(**asked | {"max_tokens": 60}, response_format=schema)
    assert isinstance(json.loads(shaped.choices[0].message.content or "")["answer"], bool)

    completion: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 12, "temperature": 0}
    text = client.completions.create(**completion).choices[0].text
    assert "".join(one.choices[0].text for one in client.completions.create(**completion, stream=True)) == text

    drawn = create(**asked | {"temperature": 1.0}, n=2)
    assert [one.index for one in drawn.choices] == [0, 1]
    stop = (choice.message.content or "")[4:6]
    stopped = create(**asked, stop=[stop])
    assert stopped.choices[0].finish_reason == "stop"
    assert stop not in (stopped.choices[0].message.content or "")
    turn: dict[str, Any] = asked | {"max_tokens": 8, "extra_body": {"conversation_id": "c"}}
    first = create(**turn | {"messages": [{"role": "user", "content": "Why are queues good? " * 12}]})
    second = create(**turn | {"messages": [{"role": "user", "content": "And why else?"}]})
    assert first.usage
    assert second.usage
    assert second.usage.prompt_tokens > first.usage.total_tokens
    assert second.usage.prompt_tokens_details
    assert second.usage.prompt_tokens_details.cached_tokens
    with pytest.raises(openai.BadRequestError) as too_long:
        create(**asked | {"messages": [{"role": "user", "content": "word " * 3000}]})
    assert too_long.value.code == "context_length_exceeded"

    calls_tools(client)


async def test_a_chat_comes_whole_or_streamed_with_its_usage(asker: Asker) -> None:
    """The same text, and what it took in the last chunk, behind the reason."""
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0, "max_tokens": 24}
    whole = await asker.ask(**asked)
    *told, last = await asker.ask(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert told[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)
    assert [model.id for model in (await asker.ask("models.list")).data] == ["tiny"]


async def test_a_seed_draws_again_what_it_drew_and_penalties_change_it(asker: Asker) -> None:
    """Sampled, streamed or not; and a token that is penalized does not come back at once."""
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 1.0, "max_tokens": 24, "seed": 7}
    drawn = (await asker.ask(**asked)).choices[0].message.content
    assert (await asker.ask(**asked)).choices[0].message.content == drawn
    assert (await asker.ask(**asked | {"seed": 8})).choices[0].message.content != drawn
    chunks = await asker.ask(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == drawn
    greedy = asked | {"temperature": 0, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
    told = {penalty: await distinct_tokens(asker, greedy | {"frequency_penalty": penalty}) for penalty in (0.0, 2.0)}
    assert told[0.0] < told[2.0]
    assert told[0.0] < await distinct_tokens(asker, greedy | {"presence_penalty": 2.0})


async def distinct_tokens(asker: Asker, asked: dict[str, Any]) -> int:
    """How many different ones an answer has."""
    choice = (await asker.ask(**asked, logprobs=True)).choices[0]
    return len({tuple(one.bytes) for one in choice.logprobs.content})


async def test_a_schema_binds_a_stream_too(asker: Asker) -> None:
    """What came in pieces is JSON of that form."""
    schema: Any = {"type": "json_schema", "json_schema": {"name": "yes-or-no", "schema": SCHEMA, "strict": True}}
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0, "max_tokens": 60}
    chunks = await asker.ask(**asked, response_format=schema, stream=True)
    answer = json.loads("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert isinstance(answer["answer"], bool)


async def test_what_is_refused_raises_the_clients_own_errors(asker: Asker, fleet: RunningFleet, address: str) -> None:
    """Each by its class and code, streamed or not: before the engine, by the engine, by the key and by its limit."""
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "max_tokens": 4}
    limited = asker.with_key(new_key(fleet, address, RateLimits(requests_per_minute=1)))
    await limited.ask(**asked)
    long: Any = [{"role": "user", "content": "word " * 3000}]
    cases: list[tuple[Asker, dict[str, Any], type[openai.APIStatusError], str]] = [
        (asker, asked | {"model": "other"}, openai.NotFoundError, "model_not_found"),
        (asker, asked | {"logit_bias": {"5": 10}}, openai.BadRequestError, "unsupported_parameter"),
        (asker, asked | {"messages": long}, openai.BadRequestError, "context_length_exceeded"),
        (asker.with_key("fleet-wrong"), asked, openai.AuthenticationError, "invalid_api_key"),
        (limited, asked, openai.RateLimitError, "rate_limit_exceeded"),
    ]
    for who, request, error, code in cases:
        for is_streamed in (False, True):
            with pytest.raises(error) as refused:
                await who.ask(**request, stream=is_streamed)
            assert refused.value.code == code


def test_several_prompts_are_answered_as_each_alone(client: OpenAI) -> None:
    """Whole and streamed, as texts and as token ids; one that is too long is the error of all."""
    asked: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 12}
    create = client.completions.create
    alone = [create(prompt=prompt, **asked) for prompt in PROMPTS]
    whole = create(prompt=PROMPTS, **asked)
    assert [choice.text for choice in whole.choices] == [one.choices[0].text for one in alone]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert whole.usage is not None
    assert whole.usage.total_tokens == sum(one.usage.total_tokens for one in alone if one.usage)
    *told, last = create(prompt=PROMPTS, stream=True, stream_options={"include_usage": True}, **asked)
    texts = {choice.index: "" for choice in whole.choices}
    for chunk in told:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [choice.text for choice in whole.choices]
    assert last.usage is not None
    assert last.usage.total_tokens == whole.usage.total_tokens
    ids = create(prompt=[[5, 6, 7], [8, 9]], **asked)
    assert ids.choices[1].text == create(prompt=[8, 9], **asked).choices[0].text
    with pytest.raises(openai.BadRequestError, match=r"prompt\.1: ") as too_long:
        create(prompt=["x", "word " * 3000], **asked)
    assert too_long.value.code == "context_length_exceeded"


def test_the_drawn_token_is_among_the_likeliest_of_a_completion(client: OpenAI) -> None:
    """One more than asked for where it is not one of them, as random weights draw it."""
    asked: dict[str, Any] = {"model": "tiny", "temperature": 2, "seed": 3, "max_tokens": 30}
    answer = client.completions.create(prompt=PROMPTS[0], logprobs=1, extra_body={"ignore_eos": True}, **asked)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    drawn = list(zip(logprobs.tokens or (), logprobs.token_logprobs or (), logprobs.top_logprobs or (), strict=True))
    assert len(drawn) == 30
    assert all(top[token] == logprob for token, logprob, top in drawn)
    assert max(len(top) for _, _, top in drawn) == 2


def read(chunks: Iterable[ChatCompletionChunk], fleet: RunningFleet, others: Sequence[Submission]) -> tuple[str, int]:
    """The text of a stream whose worker is killed when it has begun, and the attempt that ended it."""
    text, job_id, workers = "", "", fleet.worker_processes()
    with fleet.producer() as producer:
        for chunk in chunks:
            if not job_id:
                for process in workers:
                    process.send_signal(signal.SIGKILL)
                for other in others:
                    producer.cancel(other)
            text += chunk.choices[0].delta.content or ""
            job_id = chunk.id.removeprefix("chatcmpl-")
        return text, producer.result(job_id, timeout_seconds=60).attempt


@pytest.mark.timeout(900)
def test_when_the_worker_dies_the_stream_goes_on(client: OpenAI, fleet: RunningFleet) -> None:
    """Its client reads the whole text, as if nothing had happened."""
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0, "max_tokens": 1500}
    asked |= {"extra_body": {"ignore_eos": True}, "timeout": 240}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    for _ in range(3):  # the engine may be done before the kill reaches it, also beside others: then once more
        fleet.wait_until_ready()
        with fleet.producer() as producer:
            others = [producer.submit(model="tiny", prompt="Once", sampling=OTHERS) for _ in range(32)]
        text, attempt = read(client.chat.completions.create(**asked, stream=True), fleet, others)
        assert text == whole
        if attempt == 2:
            break
    assert attempt == 2
