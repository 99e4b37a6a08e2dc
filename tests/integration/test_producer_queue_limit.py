"""A queue takes as many waiting jobs as its limit says, exactly, from however many producers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from producer import (
    AsyncProducer,
    FailureCode,
    InvalidRequest,
    Priority,
    Producer,
    QueueFull,
    Submission,
    SubmitOutcome,
    keys,
)
from producer.queue_counts import count_queues
from producer.registry import MOST_WAITING
from tests.finishing import Answerer


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
    return ({"model": "m", "prompt": f"prompt {number}"} | fields for number in range(count))


def waiting(client: redis.Redis) -> int:
    """How many jobs of ``m`` wait, over all lanes."""
    return sum(int(client.llen(lane)) for lane in keys.all_lanes("m"))


def test_limits_are_set_read_and_lifted(producer: Producer) -> None:
    """By model, also for one that nobody has declared yet."""
    assert producer.queue_limits() == {}
    producer.set_queue_limit("m", 5)
    producer.set_queue_limit("later", 0)
    assert producer.queue_limits() == {"later": 0, "m": 5}
    producer.set_queue_limit("m", None)
    producer.set_queue_limit("m", None)
    assert producer.queue_limits() == {"later": 0, "m": None}


@pytest.mark.parametrize("limit", [-1, True, 1.5, "5"])
def test_what_is_no_number_of_jobs_is_refused(producer: Producer, limit: int) -> None:
    """The error says what may be given."""
    with pytest.raises(InvalidRequest, match=r"max_waiting_jobs: a whole number of jobs, or None"):
        producer.set_queue_limit("m", limit)
    with pytest.raises(InvalidRequest, match="1 to 256 characters"):
        producer.set_queue_limit("", 1)


@pytest.mark.parametrize("limit", [0, 1, 5, 7])
def test_a_batch_is_taken_to_the_edge_of_the_limit_and_not_beyond(
    client: redis.Redis, producer: Producer, limit: int
) -> None:
    """The first ones, each of the others with the limit and the depth that it found."""
    producer.set_queue_limit("m", limit)

    outcomes = producer.submit_many(requests(7))

    assert [outcome.submission is not None for outcome in outcomes] == [True] * limit + [False] * (7 - limit)
    assert waiting(client) == limit
    for outcome in outcomes[limit:]:
        assert isinstance(outcome.error, QueueFull)
        assert (outcome.error.model, outcome.error.limit, outcome.error.depth) == ("m", limit, limit)
        assert (outcome.error.code, outcome.error.code.retryable) == (FailureCode.QUEUE_FULL, True)


def test_a_single_submission_is_refused_until_a_worker_has_taken_a_job(client: redis.Redis, producer: Producer) -> None:
    """The error says what to do, and nothing is left of the refused job."""
    producer.set_queue_limit("m", 1)
    producer.submit(model="m", prompt="x", priority="interactive")
    before = set(client.keys("*")) - {keys.MEMORY}

    with pytest.raises(QueueFull, match=r"1 jobs of model 'm' wait, and at most 1 may.*fleet queues limit m"):
        producer.submit(model="m", prompt="y", idempotency_key="k")
    assert set(client.keys("*")) - {keys.MEMORY} == before

    client.rpop(keys.lane("m", Priority.INTERACTIVE))
    assert not producer.submit(model="m", prompt="y", idempotency_key="k").duplicate


def test_two_million_may_wait_unless_an_operator_says_otherwise(client: redis.Redis, producer: Producer) -> None:
    """More than a night's work, and no more than a server holds; none is none."""
    fill = "for _ = 1, tonumber(ARGV[1]) do redis.call('LPUSH', KEYS[1], '') end"
    for _ in range(20):
        client.eval(fill, 1, keys.lane("m", Priority.NORMAL), MOST_WAITING // 20)
    client.rpop(keys.lane("m", Priority.NORMAL))

    taken, refused = producer.submit_many(requests(2))
    assert taken.submission is not None
    assert isinstance(refused.error, QueueFull)
    assert (refused.error.limit, refused.error.depth) == (MOST_WAITING, MOST_WAITING)
    producer.set_queue_limit("m", None)
    assert producer.submit(model="m", prompt="x")


def test_all_lanes_count_and_other_models_do_not(client: redis.Redis, producer: Producer) -> None:
    """A limit bounds what a fleet owes, whatever its urgency."""
    producer.set_queue_limit("m", 4)
    for lane in Priority:
        producer.submit(model="m", prompt="x", priority=lane)

    for lane in Priority:
        with pytest.raises(QueueFull):
            producer.submit(model="m", prompt="x", priority=lane)
    outcomes = producer.submit_many(requests(10, model="n"))

    assert all(outcome.submission for outcome in outcomes)
    assert waiting(client) == 4


def test_a_job_that_is_known_needs_no_room(producer: Producer) -> None:
    """The same key names the same job, however full the queue."""
    producer.set_queue_limit("m", 1)
    first = producer.submit(model="m", prompt="x", idempotency_key="k")

    again = producer.submit(model="m", prompt="x", idempotency_key="k")

    assert (again.job_id, again.duplicate) == (first.job_id, True)


def test_producers_at_the_same_time_share_one_limit_exactly(redis_url: str, client: redis.Redis) -> None:
    """Four of them, each with its own connection."""

    def submit(number: int) -> list[SubmitOutcome]:
        with Producer(redis_url) as ours:
            return ours.submit_many(requests(1_000, tenant=f"{number}"))

    with Producer(redis_url) as producer, ThreadPoolExecutor(4) as pool:
        producer.declare_model("m")
        producer.set_queue_limit("m", 1_500)
        outcomes = [outcome for some in pool.map(submit, range(4)) for outcome in some]

    taken = [outcome.submission for outcome in outcomes if isinstance(outcome.submission, Submission)]
    assert len(outcomes) == 4_000
    assert len({submission.job_id for submission in taken}) == 1_500 == waiting(client)


def test_a_map_waits_for_room_and_loses_nothing(redis_url: str, client: redis.Redis, producer: Producer) -> None:
    """Far more requests than may wait, of two models, one of which has no limit."""
    producer.set_queue_limit("m", 10)
    mixed = ({"model": "m", "prompt": f"prompt {number}"} for number in range(600))
    deepest = 0
    with Answerer(redis_url) as answerer:
        for index, outcome in enumerate(producer.map(mixed, window=100)):
            deepest = max(deepest, waiting(client))
            assert outcome.unwrap().text == f"prompt {index}"

    assert (index, answerer.answered) == (599, 600)
    assert deepest <= 10


def test_a_full_queue_holds_up_no_other_models_jobs_in_a_map(
    redis_url: str, client: redis.Redis, producer: Producer
) -> None:
    """Nobody drains ``n``; what is for ``m`` is answered all the same."""
    producer.set_queue_limit("n", 1)
    mixed = ({"model": "mn"[number % 2], "prompt": f"prompt {number}"} for number in range(40))
    outcomes = producer.map(mixed, window=100, in_order=False)
    with Answerer(redis_url):
        answered = {next(outcomes).unwrap().text for _ in range(20)}

    assert answered == {f"prompt {number}" for number in range(0, 40, 2)}
    assert client.llen(keys.lane("n", Priority.NORMAL)) == 1


async def test_the_asyncio_producer_obeys_the_same_limit(redis_url: str) -> None:
    """Refused alone, an outcome among many, waited for in a map."""
    async with AsyncProducer(redis_url) as producer:
        await producer.declare_model("m")
        await producer.set_queue_limit("m", 3)
        assert await producer.queue_limits() == {"m": 3}
        with Answerer(redis_url):
            texts = [outcome.unwrap().text async for outcome in producer.map(requests(50))]
        outcomes = await producer.submit_many(requests(4))
        with pytest.raises(QueueFull):
            await producer.submit(model="m", prompt="x")

    assert texts == [f"prompt {number}" for number in range(50)]
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 3 + [QueueFull]


def test_a_limit_is_counted_beside_what_waits(redis_url: str, producer: Producer) -> None:
    """For the command line."""
    producer.set_queue_limit("m", 7)
    producer.submit(model="m", prompt="x")
    with redis.Redis.from_url(redis_url) as plain:
        counts = {each.model: (each.waiting, each.max_waiting) for each in count_queues(plain)}

    assert counts == {"m": (1, 7), "n": (0, 2_000_000)}
