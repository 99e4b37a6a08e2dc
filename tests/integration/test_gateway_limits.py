"""What the gateway does when a queue is full or a key has asked for too much, to OpenAI's own client."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
import redis
from openai import OpenAI
from typer.testing import CliRunner

from producer import JobState, Producer, keys
from producer.cli import build_app
from producer.gateway.callers import KEYS_SECONDS
from producer.gateway.metering import RATE_LIMIT_HEADERS
from producer.rate_limits import RateLimits
from tests.gateways import running_gateway
from tests.running import simulated
from tests.waiting import eventually

CHAT: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "Why queues?"}], "max_tokens": 5}
ESTIMATE = 3 + 5
JOB: dict[str, Any] = {"model": "sim", "prompt": "Why queues?", "sampling": {"max_tokens": 5}}


@dataclass(frozen=True)
class Doors:
    """Two gateways in front of one fleet."""

    addresses: tuple[str, str]
    producer: Producer
    redis_url: str

    def key(self, name: str, limits: RateLimits) -> str:
        """Of a tenant of this name."""
        return self.producer.create_key(name, limits=limits)

    def client(self, key: str, door: int = 0) -> httpx.Client:
        """Of whoever has this key."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.addresses[door], headers=headers, timeout=60)

    def openai(self, key: str, *, max_retries: int = 0) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.addresses[0]}/v1", api_key=key, max_retries=max_retries)


def ask_on(client: OpenAI) -> None:
    """More often than any key of these tests may."""
    for _ in range(100):
        client.chat.completions.create(**CHAT)


@pytest.fixture
def doors(redis_url: str, tmp_path: Path) -> Iterator[Doors]:
    """Each test makes keys of its own before it asks."""
    with ExitStack() as stack:
        stack.enter_context(simulated(redis_url, tmp_path))
        addresses = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            addresses.append(stack.enter_context(running_gateway(redis_url, tmp_path / name, "--require-keys")))
        producer = stack.enter_context(Producer(redis_url))
        yield Doors((addresses[0], addresses[1]), producer, redis_url)


def test_a_full_queue_is_the_official_clients_rate_limit_error(doors: Doors) -> None:
    """With ``Retry-After``, whichever limit it was."""
    doors.producer.declare_model("m")
    doors.producer.set_tenant("acme", max_waiting_jobs=1)
    acme = doors.key("acme", RateLimits())
    doors.producer.submit(model="m", prompt="x", tenant="acme")
    with doors.openai(acme) as client, pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="m", prompt="x")
    assert caught.value.code == "queue_full"
    assert "tenant 'acme'" in caught.value.message
    assert caught.value.response.headers["retry-after"] == "1"


def test_two_gateways_share_one_keys_requests(doors: Doors) -> None:
    """Five a minute are five, whoever is asked; what is refused leaves no job behind."""
    key = doors.key("acme", RateLimits(requests_per_minute=5))
    with doors.client(key) as one, doors.client(key, 1) as other:
        answers = [(one, other)[number % 2].post("/v1/jobs", json=JOB) for number in range(6)]
        assert [answer.status_code for answer in answers] == [202] * 5 + [429]
        remaining = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
        assert remaining == [4, 3, 2, 1, 0, 0]
        refused = answers[-1]
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        assert refused.headers["x-ratelimit-limit-requests"] == "5"
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in refused.headers, "tokens are not limited"
        assert one.get(answers[0].headers["location"]).status_code == 200, "looking costs nothing"
        assert one.get("/v1/models").headers["x-ratelimit-remaining-requests"] == "0"
    with redis.Redis.from_url(doors.redis_url) as server:
        assert len(server.keys(keys.job_record("*"))) == 5


def test_the_official_client_waits_as_it_is_told_and_is_served(doors: Doors) -> None:
    """Sixty a minute were asked for at once: the next one fits a second later."""
    key = doors.key("acme", RateLimits(requests_per_minute=60))
    with doors.client(key) as plain, doors.openai(key) as impatient, doors.openai(key, max_retries=2) as patient:
        headers: httpx.Headers | None = None
        while headers is None or headers["x-ratelimit-remaining-requests"] != "0":
            headers = plain.post("/v1/jobs", json=JOB | {"idempotency_key": "same"}).headers
        with pytest.raises(openai.RateLimitError) as caught:
            ask_on(impatient)
        assert caught.value.response.headers["retry-after"] == "1"
        assert patient.chat.completions.create(**CHAT).choices[0].message.content


def test_the_truth_takes_the_place_of_the_estimate(doors: Doors) -> None:
    """Also at the end of a stream; what the client is told of the key is what is true then."""
    key = doors.key("acme", RateLimits(tokens_per_minute=100_000))
    with doors.openai(key) as client, doors.client(key) as plain:
        raw = client.chat.completions.with_raw_response.create(**CHAT | {"max_tokens": 50_000, "stop": ["a"]})
        used = raw.parse().usage
        assert used is not None
        assert 100_000 - int(raw.headers["x-ratelimit-remaining-tokens"]) <= used.total_tokens
        assert set(raw.headers) >= {name for name in RATE_LIMIT_HEADERS if name.endswith("tokens")}
        stream = client.chat.completions.create(**CHAT | {"max_tokens": 50_000, "stop": ["a"]}, stream=True)
        assert list(stream)
        assert int(plain.get("/v1/models").headers["x-ratelimit-remaining-tokens"]) > 90_000


def test_what_made_no_job_costs_no_tokens(doors: Doors) -> None:
    """Refused by the fleet, or the same job again."""
    key = doors.key("acme", RateLimits(10, 100_000))
    big = JOB | {"sampling": {"max_tokens": 40_000, "stop": ["a"]}}
    with doors.client(key) as client:
        assert client.post("/v1/jobs", json=big | {"model": "unknown"}).status_code == 404
        assert client.post("/v1/jobs", json={"no": "job"}).status_code == 400
        first = client.post("/v1/jobs", json=big | {"idempotency_key": "same"})
        again = client.post("/v1/jobs", json=big | {"idempotency_key": "same"})
        assert (first.status_code, again.status_code, again.json()["duplicate"]) == (202, 202, True)
        assert int(first.headers["x-ratelimit-remaining-tokens"]) <= 60_000 + 40_000 * 30 // 60
        assert int(again.headers["x-ratelimit-remaining-tokens"]) > 50_000
        assert int(again.headers["x-ratelimit-remaining-requests"]) >= 7, "the one that is no job cost nothing"


def test_what_never_fits_is_refused_and_not_tried_again(doors: Doors) -> None:
    """No waiting helps; the error says what does."""
    key = doors.key("acme", RateLimits(tokens_per_minute=ESTIMATE))
    with doors.openai(key, max_retries=5) as client:
        assert client.chat.completions.create(**CHAT).choices
        with pytest.raises(openai.RateLimitError, match="this may take 9 tokens, and its key has 8 a minute") as caught:
            client.chat.completions.create(**CHAT | {"max_tokens": 6})
    assert "retry-after" not in caught.value.response.headers
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_turns_history_counts_at_the_door(doors: Doors) -> None:
    """Refused are a turn that goes beyond what is left with its history, and one that goes beyond a minute's worth."""
    question = {"role": "user", "content": "word " * 200}
    first = {"model": "sim", "messages": [question], "conversation_id": "long", "sampling": JOB["sampling"]}
    said = doors.producer.result(doors.producer.submit(first | {"tenant": "acme"})).usage
    keys_by_limit = {limit: doors.key("acme", RateLimits(tokens_per_minute=limit)) for limit in (300, 200)}
    with doors.client(keys_by_limit[300]) as client:
        before, refused, other = (
            client.post("/v1/chat/completions", json=CHAT | {"conversation_id": name})
            for name in ("long", "long", "other")
        )
    assert (before.status_code, refused.status_code, other.status_code) == (200, 429, 200)
    assert before.json()["usage"]["prompt_tokens"] > said.total_tokens
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) > 5
    with doors.client(keys_by_limit[200]) as client:
        hopeless = client.post("/v1/chat/completions", json=CHAT | {"conversation_id": "long"})
    assert (hopeless.status_code, hopeless.headers["x-should-retry"]) == (429, "false")
    assert "its key has 200 a minute" in hopeless.json()["error"]["message"]


def test_the_command_line_sets_limits_and_gateways_notice(doors: Doors) -> None:
    """Within seconds; a key without any has no such headers."""
    run = CliRunner(env={"FLEET_REDIS_URL": doors.redis_url})
    made = run.invoke(build_app([]), ["keys", "create", "acme", "--requests-per-minute", "7"]).output.strip()
    [key] = doors.producer.api_keys()
    assert run.invoke(build_app([]), ["keys", "list"]).output.rstrip().endswith("\t7\tnone")
    with doors.client(made) as client:
        assert client.get("/v1/models").headers["x-ratelimit-limit-requests"] == "7"
        assert run.invoke(build_app([]), ["keys", "limit", key.key_id, "--tokens-per-minute", "9"]).exit_code == 0
        eventually(
            lambda: client.get("/v1/models").headers.get("x-ratelimit-limit-tokens") == "9",
            what="the limit is noticed",
            seconds=KEYS_SECONDS + 5,
        )
        assert run.invoke(build_app([]), ["keys", "limit", key.key_id]).exit_code == 0
        eventually(
            lambda: "x-ratelimit-limit-tokens" not in client.get("/v1/models").headers,
            what="it is lifted",
            seconds=KEYS_SECONDS + 5,
        )
        assert set(client.get("/v1/models").headers).isdisjoint(RATE_LIMIT_HEADERS)


def test_many_jobs_in_one_request_cost_as_many_requests(doors: Doors) -> None:
    """A line that the key has no room for says so, and the lines before it are jobs; several prompts go together."""
    key = doors.key("acme", RateLimits(requests_per_minute=5, tokens_per_minute=1000))
    lines = b"\n".join([orjson.dumps(JOB)] * 7)
    with doors.client(key) as client:
        answer = client.post("/v1/jobs/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"})
        told = [orjson.loads(line) for line in answer.text.splitlines()]
        assert ["id" in line for line in told] == [True] * 5 + [False] * 2
        assert {line["error"]["code"] for line in told[5:]} == {"rate_limit_exceeded"}
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    other = doors.key("other", RateLimits(requests_per_minute=5, tokens_per_minute=1000))
    with doors.client(other, 1) as client:
        asked = {"model": "sim", "prompts": ["x"] * 3, "max_tokens": 5}
        answer = client.post("/batch_generate", json=asked)
        taken = 1000 - int(answer.headers["x-ratelimit-remaining-tokens"])
        assert answer.headers["x-ratelimit-remaining-requests"] == "2"
        assert 3 * 2 <= taken <= 3 * 10, "what the answers took, not what they might have"
        refused = client.post("/batch_generate", json=asked)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert client.post("/generate", json={"model": "sim", "prompt": "x"}).status_code == 200


def test_a_bulk_requests_lines_that_made_no_job_cost_no_tokens(doors: Doors) -> None:
    """Neither those that the fleet refused nor those that were there before."""
    key = doors.key("acme", RateLimits(tokens_per_minute=100_000))
    big = JOB | {"sampling": {"max_tokens": 30_000, "stop": ["a"]}, "idempotency_key": "bulk"}
    unknown = JOB | {"sampling": {"max_tokens": 30_000}, "model": "unknown"}

    def remaining(*jobs: dict[str, Any]) -> int:
        lines = b"\n".join(map(orjson.dumps, jobs))
        answer = client.post("/v1/jobs/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 200
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    with doors.client(key) as client:
        assert remaining(unknown, unknown, unknown) > 99_000
        assert 65_000 < remaining(big, unknown, big) < 99_000
        assert remaining(big, big) > 65_000


def test_retry_after_is_what_the_queue_drains_at(redis_url: str, tmp_path: Path) -> None:
    """Of a single request, of a batch that had no room at all, and in each line of a bulk request."""
    with (
        simulated(redis_url, tmp_path, seconds_per_token=0.01, max_num_seqs=1),
        running_gateway(redis_url, tmp_path) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        Producer(redis_url) as producer,
    ):
        for _ in range(3):
            assert client.post("/generate", json={"prompt": "x", "max_tokens": 1}).status_code == 200
        endless = JOB | {"sampling": {"max_tokens": 1_500, "ignore_eos": True}}
        waiting = [producer.submit(**endless) for _ in range(30)]
        eventually(lambda: producer.status(waiting[0]).state is JobState.RUNNING, what="the engine is full")
        producer.set_queue_limit("sim", 20)
        before = producer.drain_rates()["sim"].jobs_per_second
        chat = client.post("/v1/chat/completions", json=CHAT)
        batch = client.post("/batch_generate", json={"prompts": ["x", "y"]})
        lines = b"\n".join([orjson.dumps(JOB)] * 2)
        bulk = client.post("/v1/jobs/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"})
        after = producer.drain_rates()["sim"].jobs_per_second
        for job in reversed(waiting):
            producer.cancel(job)
    told = [orjson.loads(line) for line in bulk.text.splitlines()]
    assert (chat.status_code, batch.status_code, bulk.status_code) == (429, 429, 200)
    assert {line["error"]["code"] for line in (*told, chat.json(), batch.json())} == {"queue_full"}
    places = int(chat.json()["error"]["message"].partition(" ")[0]) - 20 + 1
    least, most = (ceil(places / rate) for rate in (max(before, after), min(before, after)))
    assert least > 1, "the fallback would not be told apart"
    seconds = [int(answer.headers["retry-after"]) for answer in (chat, batch)]
    seconds += [line["retry_after_seconds"] for line in told]
    assert all(least <= one <= most for one in seconds), (least, seconds, most)
