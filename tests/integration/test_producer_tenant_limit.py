"""A tenant has as many waiting jobs of a model as its own limit says, exactly, from however many producers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from producer import AsyncProducer, FailureCode, InvalidRequest, Priority, Producer, QueueFull, TenantTerms, keys
from producer.cli import build_app
from producer.jobs import SubmitOutcome
from tests.running import simulated

STRANGE = "a|b \u00fc/%7C"
"""A name that would reach into other keys, were it taken as it is."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the models ``m`` and ``n``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        ours.declare_model("n")
        yield ours


def requests(count: int, **fields: object) -> Iterator[dict[str, object]]:
    """So many of one kind."""
    return ({"model": "m", "prompt": f"prompt {number}", "tenant": "t"} | fields for number in range(count))


def waiting(client: redis.Redis) -> int:
    """How many jobs of ``m`` wait, over all lanes and tenants."""
    return sum(int(client.llen(lane)) for lane in keys.all_lanes("m"))


def test_the_limit_is_one_of_the_tenants_terms(producer: Producer, redis_url: str) -> None:
    """Beside the others, from Python and from the command line."""
    producer.set_tenant("t", max_waiting_jobs=5)
    producer.set_tenant(STRANGE, weight=2.0, max_running_jobs=3, max_waiting_jobs=0)
    run = CliRunner(env={"FLEET_REDIS_URL": redis_url})
    assert run.invoke(build_app(()), ["tenants", "set", "u", "--max-waiting-jobs", "9"]).exit_code == 0

    assert producer.tenants() == {
        "t": TenantTerms(max_waiting_jobs=5),
        "u": TenantTerms(max_waiting_jobs=9),
        STRANGE: TenantTerms(2.0, 3, 0),
    }
    assert "u  1  none  9" in run.invoke(build_app(()), ["tenants"]).output


@pytest.mark.parametrize("limit", [-1, True, 1.5])
def test_what_is_no_number_of_jobs_is_refused(producer: Producer, limit: int) -> None:
    """The error says what may be given."""
    with pytest.raises(InvalidRequest, match="max_waiting_jobs: a whole number from 0 on, or None"):
        producer.set_tenant("t", max_waiting_jobs=limit)


@pytest.mark.parametrize("tenant", ["t", STRANGE])
def test_a_batch_is_taken_to_the_edge_of_the_limit_and_not_beyond(
    client: redis.Redis, producer: Producer, tenant: str
) -> None:
    """Over all lanes together; what is refused says whose limit it met, and what to do."""
    producer.set_tenant(tenant, max_waiting_jobs=5)
    for lane in Priority:
        producer.submit(model="m", prompt="x", tenant=tenant, priority=lane)

    outcomes = producer.submit_many(requests(3, tenant=tenant))

    assert [outcome.submission is not None for outcome in outcomes] == [True, False, False]
    assert waiting(client) == 5
    error = outcomes[1].error
    assert isinstance(error, QueueFull)
    assert (error.tenant, error.limit, error.depth, error.retry_after_seconds) == (tenant, 5, 5, 1)
    assert (error.code, error.code.retryable) == (FailureCode.QUEUE_FULL, True)
    assert f"fleet tenants set {tenant} --max-waiting-jobs N" in str(error)


def test_nobody_else_is_held_up_by_it(client: redis.Redis, producer: Producer) -> None:
    """Neither other tenants, whose names may begin alike, nor jobs of no tenant, nor its own of another model."""
    producer.set_tenant("t", max_waiting_jobs=0)

    for other in ("t1", "T", "t|", None):
        producer.submit(model="m", prompt="x", tenant=other)
    with pytest.raises(QueueFull, match="0 jobs of tenant 't' for model 'm' wait, and at most 0 may") as caught:
        producer.submit(model="m", prompt="x", tenant="t")

    assert caught.value.retry_after_seconds == 120, "it will not be let in by waiting"
    assert waiting(client) == 4
    producer.set_tenant("t", max_waiting_jobs=1)
    producer.submit(model="m", prompt="x", tenant="t")
    producer.submit(model="n", prompt="x", tenant="t")


def test_the_models_limit_counts_as_well(producer: Producer) -> None:
    """Whichever is met first; the model's is told where both are."""
    producer.set_queue_limit("m", 3)
    producer.set_tenant("t", max_waiting_jobs=2)
    outcomes = producer.submit_many(requests(3))
    more = producer.submit_many([*requests(2, tenant="u"), *requests(1)])

    errors = [outcome.error for outcome in (*outcomes, *more)]
    assert [error and (error.tenant, error.limit) for error in errors if not isinstance(error, InvalidRequest)] == [
        None,
        None,
        ("t", 2),
        None,
        (None, 3),
        (None, 3),
    ]


def test_producers_at_the_same_time_share_one_limit_exactly(redis_url: str, client: redis.Redis) -> None:
    """Four of them, each with its own connection."""

    def submit(_: int) -> list[SubmitOutcome]:
        with Producer(redis_url) as ours:
            return ours.submit_many(requests(300))

    with Producer(redis_url) as producer, ThreadPoolExecutor(4) as pool:
        producer.declare_model("m")
        producer.set_tenant("t", max_waiting_jobs=500)
        outcomes = [outcome for some in pool.map(submit, range(4)) for outcome in some]

    assert sum(outcome.submission is not None for outcome in outcomes) == 500 == waiting(client)


def test_a_map_waits_for_room_and_other_tenants_pass_by(redis_url: str, tmp_path: Path) -> None:
    """Far more requests than may wait, of one tenant that is let nowhere and one that is bounded."""
    mixed = [
        {"model": "sim", "prompt": "x", "tenant": "shut" if number % 2 else "t", "sampling": {"max_tokens": 1}}
        for number in range(60)
    ]
    with simulated(redis_url, tmp_path), Producer(redis_url) as producer:
        producer.set_tenant("shut", max_waiting_jobs=0)
        producer.set_tenant("t", max_waiting_jobs=2)
        outcomes = producer.map(mixed, window=100, in_order=False)
        assert {next(outcomes).index for _ in range(30)} == set(range(0, 60, 2))
        producer.forget_tenant("shut")
        assert {outcome.index for outcome in outcomes if outcome.unwrap().choices} == set(range(1, 60, 2))


async def test_the_asyncio_producer_obeys_the_same_limit(redis_url: str) -> None:
    """Refused alone, and among many."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        await producer.set_tenant("t", max_waiting_jobs=3)
        outcomes = await producer.submit_many(requests(4))
        with pytest.raises(QueueFull):
            await producer.submit(model="m", prompt="x", tenant="t")

    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 3 + [QueueFull]
