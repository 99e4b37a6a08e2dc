"""Tenants: their terms, and what of a job the queue is told."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from typer.testing import CliRunner

from producer import AsyncProducer, InvalidRequest, Priority, Producer, TenantTerms, keys
from producer.cli import build_app
from producer.contract import ChatMessage, GenerationRequest, SamplingOptions
from producer.flow import PREFIX_CHARACTERS, flow_of, prefix_of
from tests.queued import queued

STRANGE = "a|b \u00fc/%7C"
"""A name that would reach into other keys, were it taken as it is."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def test_terms_are_set_read_and_forgotten(producer: Producer) -> None:
    """Whatever the tenant is called."""
    producer.set_tenant("acme", weight=2.5)
    producer.set_tenant(STRANGE, max_running_jobs=3)
    assert producer.tenants() == {"acme": TenantTerms(2.5), STRANGE: TenantTerms(1.0, 3)}
    assert (producer.forget_tenant("acme"), producer.forget_tenant("acme")) == (True, False)
    assert producer.tenants() == {STRANGE: TenantTerms(1.0, 3)}


async def test_terms_are_set_read_and_forgotten_in_an_event_loop(redis_url: str) -> None:
    """The same calls."""
    async with AsyncProducer(redis_url) as producer:
        await producer.set_tenant("acme", weight=2, max_running_jobs=8)
        assert await producer.tenants() == {"acme": TenantTerms(2.0, 8)}
        assert await producer.forget_tenant("acme")


@pytest.mark.parametrize(
    ("weight", "limit", "message"),
    [
        (0, None, "weight: a number from 0.001 to 1000"),
        (float("nan"), None, "weight"),
        (1e6, None, "weight"),
        (1, 0, "max_running_jobs: a whole number from 1 on"),
        (1, True, "max_running_jobs"),
    ],
)
def test_terms_that_mean_nothing_are_refused(
    producer: Producer, weight: float, limit: int | None, message: str
) -> None:
    """With what would be taken."""
    with pytest.raises(InvalidRequest, match=message):
        producer.set_tenant("acme", weight=weight, max_running_jobs=limit)
    with pytest.raises(InvalidRequest, match="1 to 256 characters"):
        producer.set_tenant("")


def test_the_command_line_sets_lists_and_forgets_terms(redis_url: str) -> None:
    """As the producer does."""
    run = CliRunner(env={"FLEET_REDIS_URL": redis_url})
    app = build_app(())
    assert run.invoke(app, ["tenants", "set", "acme", "--weight", "3", "--max-running-jobs", "16"]).exit_code == 0
    assert "acme  3  16  none" in run.invoke(app, ["tenants"]).output
    assert run.invoke(app, ["tenants", "forget", "acme"]).exit_code == 0
    assert run.invoke(app, ["tenants", "forget", "acme"]).exit_code == 1


def test_a_tenants_job_waits_in_a_flow_and_counts_as_waiting(client: redis.Redis, producer: Producer) -> None:
    """Its name can be any: it does not reach into what is beside it."""
    submission = producer.submit(model="m", prompt="x", tenant=STRANGE, priority="batch")
    [message] = queued(client, priority=Priority.BATCH)
    assert message["headers"]["id"] == submission.job_id
    [member] = client.zrange(keys.QueueKeys("m").order(6), 0, -1)
    assert member.count("|") == 1
    assert client.llen(keys.flow_lane_of_step("m", 6)) == 1
    assert client.llen(keys.lane("m", Priority.BATCH)) == 0


def test_a_job_without_tenant_deadline_or_prefix_waits_in_the_lanes_list(
    client: redis.Redis, producer: Producer
) -> None:
    """Where any Celery monitor finds it."""
    producer.submit(model="m", prompt="x")
    assert client.llen(keys.lane("m", Priority.NORMAL)) == 1
    assert not client.exists(keys.QueueKeys("m").waiting)


def test_flows_are_served_in_the_order_of_submission(client: redis.Redis, producer: Producer) -> None:
    """Within one call and from one to the next."""
    many = producer.submit_many([{"model": "m", "prompt": str(number), "tenant": "t"} for number in range(40)])
    one = producer.submit(model="m", prompt="last", tenant="t")
    expected = [outcome.submission.job_id for outcome in many if outcome.submission] + [one.job_id]
    assert [message["headers"]["id"] for message in queued(client)] == expected


def test_the_queue_is_told_size_deadline_and_prefix() -> None:
    """Tokens where they are known, bytes elsewhere; the output as it may get at most."""
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    sampling = SamplingOptions(max_tokens=100, n=2)
    request = GenerationRequest(model="m", prompt="hell\u00f6", deadline=deadline, sampling=sampling)
    assert flow_of(request) == {
        "tenant": "",
        "prompt": "6",
        "output": "200",
        "deadline": f"{deadline.timestamp():.6f}",
        "prefix": "",
    }
    ids = GenerationRequest(model="m", prompt_token_ids=(1, 2, 3), tenant="t")
    assert flow_of(ids) == {"tenant": "t", "prompt": "t3", "output": "", "deadline": "", "prefix": ""}


def test_prompts_that_begin_alike_have_one_prefix() -> None:
    """By their first characters, whether they are a prompt or a system message; short ones have none."""
    start = "x" * PREFIX_CHARACTERS
    one, other = (GenerationRequest(model="m", prompt=start + end) for end in ("a", "b"))
    chat = GenerationRequest(
        model="m", messages=(ChatMessage(role="system", content=start), ChatMessage(role="user", content="hi"))
    )
    assert prefix_of(one) == prefix_of(other) == prefix_of(chat) != ""
    assert prefix_of(GenerationRequest(model="m", prompt=start[1:])) == ""
    assert prefix_of(GenerationRequest(model="m", prompt="y" + start)) != prefix_of(one)


def test_a_prompt_cache_key_says_which_prompts_begin_alike() -> None:
    """Whatever they look like."""
    keyed = [GenerationRequest(model="m", prompt=text, prompt_cache_key="doc 7") for text in ("a", "b" * 5000)]
    assert prefix_of(keyed[0]) == prefix_of(keyed[1]) != ""
    assert prefix_of(GenerationRequest(model="m", prompt="a", prompt_cache_key="doc 8")) != prefix_of(keyed[0])
