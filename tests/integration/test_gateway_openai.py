"""OpenAI's own client against the gateway, with the simulated engine: what is answered, streamed and refused."""

import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from producer import keys
from producer.jobs import JobState
from tests.gateways import running_gateway
from tests.running import RunningFleet, slow_fleet
from tests.waiting import eventually

USER: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why queues?"}]
GREEDY: dict[str, Any] = {"model": "sim", "temperature": 0, "max_tokens": 20}


@pytest.fixture(scope="module")
def fleet(own_redis_url: str, own_folder: Path) -> Iterator[RunningFleet]:
    """Answers at 100 tokens a second."""
    with slow_fleet(own_redis_url, own_folder) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def address(fleet: RunningFleet, own_folder: Path) -> Iterator[str]:
    """Of its gateway."""
    with running_gateway(fleet.redis_url, own_folder) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    """Tries once: a test is not to hide what went wrong the first time."""
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(address: str) -> AsyncIterator[AsyncOpenAI]:
    """The same for event loops."""
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_is_answered(client: OpenAI) -> None:
    """With text, the reason for its end, and what it took."""
    answer = client.chat.completions.create(messages=USER, **GREEDY)
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (choice.finish_reason == "length") == (answer.usage.completion_tokens == 20)


def test_a_streamed_chat_is_the_same_text(client: OpenAI) -> None:
    """In pieces: the role first, the reason last, and usage behind it if that was asked for."""
    whole = client.chat.completions.create(messages=USER, extra_body={"ignore_eos": True}, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            messages=USER,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
            **GREEDY,
        )
    )
    *told, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert [chunk.choices[0].delta.role for chunk in told] == ["assistant"] + [None] * (len(told) - 1)
    assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + ["length"]
    assert len(told) > 3
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_async_client_is_served_too(async_client: AsyncOpenAI) -> None:
    """Whole and streamed, chats and completions."""
    whole = await async_client.completions.create(prompt="Why queues?", **GREEDY)
    stream = await async_client.completions.create(prompt="Why queues?", stream=True, **GREEDY)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text
    chat = await async_client.chat.completions.create(messages=USER, **GREEDY)
    chunks = await async_client.chat.completions.create(messages=USER, stream=True, **GREEDY)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert text == chat.choices[0].message.content


def test_several_choices_and_their_log_probabilities(client: OpenAI) -> None:
    """Of a chat and of a completion, each in its form, whole and streamed."""
    asked: dict[str, Any] = GREEDY | {"temperature": 1.0, "seed": 5, "n": 2, "max_tokens": 6}
    chat = client.chat.completions.create(messages=USER, logprobs=True, top_logprobs=2, **asked)
    assert [choice.index for choice in chat.choices] == [0, 1]
    assert chat.choices[0].message.content != chat.choices[1].message.content
    for choice in chat.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        text = "".join(one.token for one in choice.logprobs.content)
        assert text.strip() == (choice.message.content or "").strip()
        assert all(len(one.top_logprobs) == 2 for one in choice.logprobs.content)
    streamed: dict[int, str] = {0: "", 1: ""}
    for chunk in client.chat.completions.create(messages=USER, logprobs=True, stream=True, **asked):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == [choice.message.content for choice in chat.choices]
    completion = client.completions.create(prompt="Why queues?", logprobs=2, **asked)
    logprobs = completion.choices[1].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.text_offset is not None
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(logprobs.token_logprobs or ())


def test_models_are_listed(client: OpenAI) -> None:
    """And looked up by name."""
    assert [model.id for model in client.models.list()] == ["sim"]
    assert client.models.retrieve("sim").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_what_is_refused_raises_the_clients_own_errors(client: OpenAI, fleet: RunningFleet) -> None:
    """With the parameter by name, before anything is queued."""
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="other", messages=USER)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as unsupported:
        create(messages=USER, logit_bias={"5": 10}, **GREEDY)
    assert (unsupported.value.code, unsupported.value.param) == ("unsupported_parameter", "logit_bias")
    with pytest.raises(openai.BadRequestError) as range_error:
        create(messages=USER, **GREEDY | {"temperature": 3})
    assert (range_error.value.code, range_error.value.param) == ("invalid_parameter", "temperature")
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens or max_tokens"):
        create(messages=USER, max_completion_tokens=3, **GREEDY)
    with pytest.raises(openai.BadRequestError, match="at most 19999") as too_long:
        create(messages=[{"role": "user", "content": "word " * 30_000}], **GREEDY)
    assert too_long.value.code == "context_length_exceeded"
    with fleet.producer() as producer:
        producer.set_queue_limit("sim", 0)
        with pytest.raises(openai.RateLimitError) as full:
            create(messages=USER, **GREEDY)
        assert full.value.response.headers["retry-after"]
        producer.set_queue_limit("sim", None)


def test_a_stream_that_fails_at_once_has_a_status(client: OpenAI) -> None:
    """As a request that does not stream."""
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(messages=[{"role": "user", "content": "word " * 30_000}], stream=True, **GREEDY)
    assert too_long.value.code == "context_length_exceeded"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_leaves_cancels_its_job(address: str, fleet: RunningFleet, *, is_streamed: bool) -> None:
    """Its slot is free at once; with an Idempotency-Key the job stays, for the client's next try."""
    asked = GREEDY | {"messages": USER, "max_tokens": 15_000, "ignore_eos": True, "stream": is_streamed}
    with httpx.Client(base_url=f"{address}/v1", timeout=30.0 if is_streamed else 3.0) as client:
        for headers in ({}, {"Idempotency-Key": f"stays {is_streamed}"}):
            request = client.build_request("POST", "/chat/completions", json=asked, headers=headers)
            if is_streamed:
                response = client.send(request, stream=True)
                assert next(response.iter_lines()).startswith("id: ")
                response.close()
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.send(request)
    with fleet.producer() as producer:
        wanted = [JobState.RUNNING, JobState.CANCELLED]  # the latest first
        eventually(lambda: [job.state for job in producer.jobs(limit=2).jobs] == wanted, what="one stays")
        [stays] = producer.jobs(limit=1).jobs
    httpx.delete(f"{address}/v1/jobs/{stays.job_id}", timeout=60).raise_for_status()
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="the other one too")


def read(chunks: Iterable[ChatCompletionChunk], fleet: RunningFleet) -> str:
    """The text of a stream whose workers are killed when it has some."""
    text, has_killed = "", False
    for chunk in chunks:
        text += chunk.choices[0].delta.content or ""
        if len(text) > 60 and not has_killed:
            has_killed = True
            for process in fleet.worker_processes():
                process.send_signal(signal.SIGKILL)
    assert has_killed
    return text


def test_when_the_worker_dies_the_stream_goes_on(client: OpenAI, fleet: RunningFleet) -> None:
    """Its client reads the whole text, as if nothing had happened."""
    asked = GREEDY | {"max_tokens": 400, "messages": USER, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**asked)
    text = read(client.chat.completions.create(stream=True, **asked), fleet)
    assert text == whole.choices[0].message.content


def test_an_answer_that_can_not_go_on_is_an_error_and_not_two_texts(client: OpenAI, fleet: RunningFleet) -> None:
    """OpenAI's protocol can not take back what was sent."""
    asked = GREEDY | {"max_tokens": 2000, "messages": USER, "extra_body": {"ignore_eos": True}}
    stream = client.chat.completions.create(stream=True, frequency_penalty=0.5, **asked)
    with pytest.raises(openai.APIError, match="send the request again"):
        read(stream, fleet)


def test_its_repeat_with_the_same_key_gives_the_whole_second_answer(client: OpenAI, fleet: RunningFleet) -> None:
    """The job went on; who comes back for it hears nothing of the text that was given up."""
    asked = GREEDY | {"max_tokens": 1000, "messages": USER, "extra_body": {"ignore_eos": True}}
    asked |= {"frequency_penalty": 0.5}
    keyed: dict[str, Any] = asked | {"extra_headers": {"Idempotency-Key": "killed once"}}
    with pytest.raises(openai.APIError, match="send the request again"):
        read(client.chat.completions.create(stream=True, **keyed), fleet)
    chunks = list(client.chat.completions.create(stream=True, **keyed))
    assert chunks[-1].choices[0].finish_reason == "length"
    [answered] = {chunk.id.removeprefix("chatcmpl-") for chunk in chunks}
    with fleet.producer() as producer:
        whole = producer.result(answered, timeout_seconds=60)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].text
    assert whole.usage.completion_tokens == 1000


def test_a_user_is_a_tenant(client: OpenAI, fleet: RunningFleet) -> None:
    """The job's record says so."""
    answer = client.chat.completions.create(messages=USER, user="acme", **GREEDY)
    with redis.Redis.from_url(fleet.redis_url) as server:
        assert server.hget(keys.job_record(answer.id.removeprefix("chatcmpl-")), "tenant") == b"acme"
