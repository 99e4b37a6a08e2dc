"""``map`` over a real Redis: bounded, lazy, in order or not, and nothing that is refused ends it."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import FailureCode, GenerationRequest, JobOutcome, Producer, SubmitFailed, keys
from producer.contract import Priority
from producer.submission import RequestLike
from tests.finishing import Answerer, celery_results
from tests.waiting import free_port
from workers.embedded import EmbeddedServer

LANE = keys.lane("m", Priority.NORMAL)

# Celery's backend calls a command of redis-py that redis-py has deprecated.


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


class Source:
    """Endless or counted requests, and how many were pulled."""

    def __init__(self, count: int | None = None) -> None:
        self.pulled = 0
        self._numbers = itertools.count() if count is None else iter(range(count))

    def __iter__(self) -> Iterator[RequestLike]:
        for number in self._numbers:
            self.pulled += 1
            yield GenerationRequest(model="m", prompt=f"prompt {number}")


def texts(outcomes: list[JobOutcome]) -> list[str]:
    """The answers."""
    return [outcome.unwrap().text for outcome in outcomes]


def test_five_thousand_requests_are_pulled_only_as_far_ahead_as_the_window(redis_url: str, producer: Producer) -> None:
    """However long the source: memory holds the window, and every answer belongs to its request."""
    source, furthest_ahead = Source(5_000), 0
    with Answerer(redis_url) as answerer:
        for count, outcome in enumerate(producer.map(source, window=200), start=1):
            furthest_ahead = max(furthest_ahead, source.pulled - count)
            assert outcome.index == count - 1
            assert outcome.unwrap().text == f"prompt {outcome.index}"

    assert (count, answerer.answered, source.pulled) == (5_000, 5_000, 5_000)
    assert furthest_ahead < 200


def test_an_endless_source_can_be_left_at_any_time(redis_url: str, producer: Producer) -> None:
    """Nothing is pulled before the first outcome is asked for."""
    source = Source()
    outcomes = producer.map(source, window=10)
    assert source.pulled == 0

    with Answerer(redis_url):
        assert texts(list(itertools.islice(outcomes, 30))) == [f"prompt {number}" for number in range(30)]
    assert 30 <= source.pulled < 40


def test_out_of_order_the_first_to_end_comes_first(redis_url: str, producer: Producer) -> None:
    """The source goes on after its second job was answered, the first one never is."""
    with redis.Redis.from_url(redis_url) as client, celery_results(redis_url) as results:

        def requests() -> Iterator[RequestLike]:
            yield from Source(2)
            yield {"model": "m"}

        outcomes = producer.map(requests(), in_order=False)
        refused = next(outcomes)
        _, second = (json.loads(message)["headers"]["id"] for message in reversed(client.lrange(LANE, 0, -1)))
        results.succeed(second)

        assert refused.index == 2
        assert next(outcomes).index == 1


def test_what_is_refused_is_an_outcome_in_its_place(redis_url: str, producer: Producer) -> None:
    """A broken request, an unknown model and a reused key, between two good ones."""
    requests: list[RequestLike] = [
        {"model": "m", "prompt": "first", "idempotency_key": "k"},
        {"model": "m", "prompt": "x", "temperature": 1},
        {"model": "typo", "prompt": "x"},
        {"model": "m", "prompt": "other", "idempotency_key": "k"},
        {"model": "m", "prompt": "first", "idempotency_key": "k"},
    ]
    with Answerer(redis_url) as answerer:
        first, broken, unknown, conflict, same = producer.map(requests)

    codes = [outcome.failure.code if outcome.failure else None for outcome in (broken, unknown, conflict)]
    assert codes == [FailureCode.INVALID_REQUEST, FailureCode.MODEL_NOT_FOUND, FailureCode.INVALID_REQUEST]
    assert (broken.job_id, unknown.job_id, conflict.job_id) == (None, None, None)
    assert texts([first, same]) == ["first", "first"]
    assert (first.job_id, answerer.answered) == (same.job_id, 1)


def test_an_empty_map_ends_at_once(producer: Producer) -> None:
    """Without asking Redis anything."""
    assert list(producer.map([])) == []


def test_without_a_server_a_map_raises_instead_of_waiting() -> None:
    """Nothing was submitted, so nothing can come."""
    with Producer(f"redis://127.0.0.1:{free_port()}/0") as producer, pytest.raises(SubmitFailed):
        list(producer.map(Source(3)))


def test_an_error_of_the_source_reaches_the_caller(redis_url: str, producer: Producer) -> None:
    """As it is."""

    def broken() -> Iterator[RequestLike]:
        yield {"model": "m", "prompt": "x"}
        raise LookupError("no more rows")

    with Answerer(redis_url), pytest.raises(LookupError, match="no more rows"):
        list(producer.map(broken()))


def test_a_map_outlasts_a_server_that_restarts(tmp_path: Path) -> None:
    """Every request has its answer, and no job was submitted twice."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    with server, Producer(server.url) as producer:
        producer.declare_model("m")
        outcomes = producer.map(Source(300), window=50)
        with Answerer(server.url):
            begun = list(itertools.islice(outcomes, 20))
        server.kill()
        server.start()
        with Answerer(server.url):
            begun.extend(outcomes)

    assert texts(begun) == [f"prompt {number}" for number in range(300)]
