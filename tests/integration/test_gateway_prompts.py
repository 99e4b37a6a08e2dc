"""Completions of several prompts, by OpenAI's own clients: one answer, one stream, one error for all of them."""

import json
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion

from producer import keys
from producer.jobs import JobState
from producer.rate_limits import RateLimits
from tests.gateways import running_gateway
from tests.running import RunningFleet, slow_fleet
from tests.waiting import eventually

PROMPTS = ["Why queues?", "Why leases?", "Why lanes?"]
GREEDY: dict[str, Any] = {"model": "sim", "temperature": 0, "max_tokens": 20}
ENDLESS: dict[str, Any] = {"model": "sim", "prompt": PROMPTS, "max_tokens": 15_000, "ignore_eos": True}
TOO_LONG = "word " * 30_000


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


def texts_of(chunks: Sequence[Completion]) -> dict[int, str]:
    """By the index of the choice."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return texts


def running(fleet: RunningFleet) -> list[str]:
    """Ids of the jobs that run."""
    with fleet.producer() as producer:
        return [job.job_id for job in producer.jobs(state=JobState.RUNNING).jobs]


def cancelled(fleet: RunningFleet) -> float:
    """How many jobs were cancelled so far."""
    return fleet.metric("fleet_requests_total", status="cancelled")


def test_several_prompts_have_one_answer(client: OpenAI) -> None:
    """Each prompt's choices behind those of the prompt before, and what all of them took."""
    alone = [client.completions.create(prompt=prompt, **GREEDY) for prompt in PROMPTS]
    together = client.completions.create(prompt=PROMPTS, **GREEDY)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == [one.choices[0].text for one in alone]
    assert [choice.finish_reason for choice in together.choices] == [one.choices[0].finish_reason for one in alone]
    assert together.usage is not None
    assert together.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone if one.usage)
    assert together.usage.total_tokens == sum(one.usage.total_tokens for one in alone if one.usage)
    assert together.object == "text_completion"


def test_token_ids_are_prompts_too(client: OpenAI) -> None:
    """A list of them is one prompt, a list of such lists several."""
    one = client.completions.create(prompt=[5, 6, 7], **GREEDY)
    assert [choice.index for choice in one.choices] == [0]
    both = client.completions.create(prompt=[[5, 6, 7], [8]], **GREEDY)
    assert both.choices[0].text == one.choices[0].text
    assert both.usage is not None
    assert both.usage.prompt_tokens == 4


async def test_choices_are_numbered_by_their_prompts_whole_and_streamed(async_client: AsyncOpenAI) -> None:
    """``n`` of the first prompt, then those of the next; in a stream they come as they are written."""
    asked: dict[str, Any] = GREEDY | {"temperature": 1.0, "seed": 5, "n": 2, "logprobs": 0}
    whole = await async_client.completions.create(prompt=PROMPTS, **asked)
    assert [choice.index for choice in whole.choices] == list(range(6))
    second = await async_client.completions.create(prompt=PROMPTS[1], **asked)
    assert [choice.text for choice in whole.choices[2:4]] == [choice.text for choice in second.choices]
    stream = await async_client.completions.create(
        prompt=PROMPTS, stream=True, stream_options={"include_usage": True}, **asked
    )
    *told, last = [chunk async for chunk in stream]
    assert texts_of(told) == {choice.index: choice.text for choice in whole.choices}
    order = [choice.index for chunk in told for choice in chunk.choices]
    assert order != sorted(order), "one prompt's answer does not wait for the other's end"
    reasons = {choice.index: choice.finish_reason for chunk in told for choice in chunk.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert all(chunk.usage is None for chunk in told)
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in (*told, last)}) == 1
    for choice in whole.choices:
        assert choice.logprobs is not None
        pairs = zip(choice.logprobs.tokens or (), choice.logprobs.token_logprobs or (), strict=True)
        assert choice.logprobs.top_logprobs == [{token: logprob} for token, logprob in pairs]


def test_a_stream_of_several_ends_once(address: str) -> None:
    """With one ``[DONE]``, and no ids: no single place is meant by them."""
    asked = GREEDY | {"prompt": PROMPTS, "stream": True}
    lines = httpx.post(f"{address}/v1/completions", json=asked, timeout=60).text.splitlines()
    assert [line for line in lines if line.startswith("data:")][-1] == "data: [DONE]"
    assert lines.count("data: [DONE]") == 1
    assert not [line for line in lines if line.startswith("id:")]


def test_a_hundred_streams_in_one_request(client: OpenAI) -> None:
    """As many as may be; each is told whole."""
    prompts = [f"prompt {number}" for number in range(100)]
    whole = client.completions.create(prompt=prompts, **GREEDY | {"max_tokens": 3})
    told = list(client.completions.create(prompt=prompts, stream=True, **GREEDY | {"max_tokens": 3}))
    assert texts_of(told) == {choice.index: choice.text for choice in whole.choices}
    with pytest.raises(openai.BadRequestError, match="at most 100 prompts") as refused:
        client.completions.create(prompt=[*prompts, "x"], stream=True, **GREEDY)
    assert refused.value.param == "prompt"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_one_that_fails_is_the_error_of_all(client: OpenAI, fleet: RunningFleet, *, is_streamed: bool) -> None:
    """At once, with its prompt's place; nobody works for the others any more."""
    before = cancelled(fleet)
    asked = {"model": "sim", "max_tokens": 15_000, "extra_body": {"ignore_eos": True}, "stream": is_streamed}
    with pytest.raises(openai.APIError, match=r"prompt\.1: .*at most 19999") as failed:
        list(client.completions.create(prompt=["a", TOO_LONG, "c"], **asked))
    assert failed.value.code == "context_length_exceeded"
    eventually(lambda: not running(fleet), what="the others are cancelled")
    assert cancelled(fleet) - before <= 2


def test_where_one_is_refused_none_is_left(client: OpenAI, fleet: RunningFleet) -> None:
    """The queue had room for two of three: they are cancelled, and the client is told when to try again."""
    with fleet.producer() as producer:
        busy = producer.submit_many(
            [{"model": "sim", "prompt": "x", "sampling": {"max_tokens": 15_000, "ignore_eos": True}}] * 8
        )
        eventually(lambda: fleet.metric("fleet_active_jobs") == 8, what="the engine is full")
        producer.set_queue_limit("sim", 2)
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(prompt=PROMPTS, **GREEDY)
        producer.set_queue_limit("sim", None)
        assert full.value.code == "queue_full"
        assert full.value.response.headers["retry-after"]
        states = [job.state for job in producer.jobs(limit=2).jobs]
        assert states == [JobState.CANCELLED] * 2
        for outcome in busy:
            producer.cancel(outcome.unwrap())
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="all have ended")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_leaves_cancels_all(address: str, fleet: RunningFleet, *, is_streamed: bool) -> None:
    """But not where it gave a key: then each prompt's job has its place behind it, and the same request finds them."""
    asked = ENDLESS | {"stream": is_streamed}
    with httpx.Client(base_url=f"{address}/v1", timeout=30.0 if is_streamed else 3.0) as client:
        for headers in ({}, {"Idempotency-Key": f"stays {is_streamed}"}):
            request = client.build_request("POST", "/completions", json=asked, headers=headers)
            if is_streamed:
                response = client.send(request, stream=True)
                assert next(response.iter_lines()).startswith("data: ")
                response.close()
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.send(request)
    with fleet.producer() as producer:
        wanted = [JobState.RUNNING] * 3 + [JobState.CANCELLED] * 3  # the latest first
        eventually(lambda: [job.state for job in producer.jobs(limit=6).jobs] == wanted, what="those with a key stay")
        stay = [job.job_id for job in producer.jobs(limit=3).jobs]
    with redis.Redis.from_url(fleet.redis_url) as server:
        named = [server.hget(keys.idempotency(None, f"stays {is_streamed}/{place}"), "job_id") for place in range(3)]
    assert {job_id.decode() for job_id in named if job_id} == set(stay)
    for job_id in stay:
        httpx.delete(f"{address}/v1/jobs/{job_id}", timeout=60).raise_for_status()
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="these too")


def test_when_the_worker_dies_all_streams_go_on(client: OpenAI, fleet: RunningFleet) -> None:
    """Their client reads the whole texts, as if nothing had happened."""
    asked: dict[str, Any] = GREEDY | {"prompt": PROMPTS, "max_tokens": 400, "extra_body": {"ignore_eos": True}}
    whole = client.completions.create(**asked)
    told: list[Completion] = []
    for chunk in client.completions.create(stream=True, **asked):
        told.append(chunk)
        if len(told) == 30:
            for process in fleet.worker_processes():
                process.send_signal(signal.SIGKILL)
    assert len(told) > 30
    assert texts_of(told) == {choice.index: choice.text for choice in whole.choices}


def test_a_key_makes_the_jobs_of_a_request_once(client: OpenAI) -> None:
    """The same answer comes again; a key that leaves no room for places is refused."""
    asked: dict[str, Any] = GREEDY | {"prompt": PROMPTS, "temperature": 1.0}
    keyed: dict[str, Any] = asked | {"extra_headers": {"Idempotency-Key": "once"}}
    first, again = (client.completions.create(**keyed) for _ in range(2))
    assert first.choices == again.choices
    assert first.id == again.id
    streamed = list(
        client.completions.create(stream=True, **keyed | {"extra_headers": {"Idempotency-Key": "streamed"}})
    )
    again_streamed = list(
        client.completions.create(stream=True, **keyed | {"extra_headers": {"Idempotency-Key": "streamed"}})
    )
    assert texts_of(streamed) == texts_of(again_streamed)
    with pytest.raises(openai.BadRequestError, match="at most 250 characters") as refused:
        client.completions.create(**asked, extra_headers={"Idempotency-Key": "k" * 251})
    assert refused.value.param == "header.idempotency-key"
    assert client.completions.create(**asked | {"prompt": "x"}, extra_headers={"Idempotency-Key": "k" * 256}).choices


def test_a_keys_tokens_are_those_that_all_answers_took(fleet: RunningFleet, tmp_path: Path) -> None:
    """Whole and streamed; what made no jobs gives them back."""
    with (
        fleet.producer() as producer,
        running_gateway(fleet.redis_url, tmp_path, "--require-keys") as address,
    ):
        key = producer.create_key("acme", limits=RateLimits(requests_per_minute=20, tokens_per_minute=100_000))
        with OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as limited:
            create = limited.completions.with_raw_response.create

            def remaining() -> int:
                return int(limited.models.with_raw_response.list().headers["x-ratelimit-remaining-tokens"])

            asked: dict[str, Any] = {"model": "sim", "prompt": PROMPTS, "max_tokens": 10_000, "stop": ["a"]}
            raw = create(**asked)
            used = json.loads(raw.text)["usage"]["total_tokens"]
            assert 100_000 - int(raw.headers["x-ratelimit-remaining-tokens"]) <= used
            assert int(raw.headers["x-ratelimit-remaining-requests"]) <= 18
            assert list(limited.completions.create(stream=True, **asked))
            assert remaining() > 99_000
            with pytest.raises(openai.NotFoundError):
                limited.completions.create(**asked | {"model": "unknown"})
            assert remaining() > 99_000
