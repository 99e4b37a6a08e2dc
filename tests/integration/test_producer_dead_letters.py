"""Dead letters that a worker's own scripts buried: listed, shown, replayed once, and purged."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from producer import (
    AsyncProducer,
    FailureCode,
    FleetUnreachable,
    InferenceFailed,
    JobState,
    NotReplayable,
    Priority,
    Producer,
    ResultNotReady,
    UnknownDeadLetter,
    keys,
)
from tests.burying import Undertaker

NAMES = keys.QueueKeys("m")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def undertaker(client: redis.Redis) -> Undertaker:
    """Who buries the messages of ``m``."""
    return Undertaker(client)


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the models ``m`` and ``n``."""
    with Producer(redis_url, job_record_seconds=1000) as ours:
        ours.declare_model("m")
        ours.declare_model("n")
        yield ours


def buried(producer: Producer, undertaker: Undertaker, prompt: str = "x") -> str:
    """A poisoned job's letter."""
    producer.submit(model=undertaker.model, prompt=prompt, priority=Priority.BATCH)
    return undertaker.poison()


def test_a_letter_says_what_a_worker_wrote(client: redis.Redis, producer: Producer, undertaker: Undertaker) -> None:
    """With every attempt, and the message byte for byte."""
    before = client.time()[0]
    submission = producer.submit(model="m", prompt='ünï \x00 "quoted" \U0001f600', priority=Priority.BATCH)
    message = client.lindex(keys.lane("m", Priority.BATCH), 0)
    letter = producer.dead_letter(undertaker.poison())

    assert (letter.letter_id, letter.job_id, letter.queue, letter.model) == (
        submission.job_id,
        submission.job_id,
        "fleet.m",
        "m",
    )
    assert (letter.priority, letter.code, letter.reason) == (
        Priority.BATCH,
        FailureCode.POISONED,
        "it kills engines",
    )
    assert letter.message == message
    [attempt] = letter.history
    assert (attempt.worker, attempt.delivery, attempt.event) == ("w@h", 1, "the engine died")
    assert before <= attempt.claimed_at <= attempt.at <= letter.buried_at <= before + 60


def test_an_element_that_is_no_message_is_a_letter_without_a_job(producer: Producer, undertaker: Undertaker) -> None:
    """Kept as it was, and not to be replayed: it would be buried again."""
    letter = producer.dead_letter(undertaker.quarantine(b"\xff not JSON"))

    assert (letter.job_id, letter.code, letter.message) == (None, FailureCode.INVALID_REQUEST, b"\xff not JSON")
    with pytest.raises(NotReplayable, match=letter.letter_id):
        producer.replay_dead_letter(letter.letter_id)
    assert producer.dead_letters() == [letter]


def test_letters_are_listed_the_latest_first_in_pages_and_by_model(
    client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """By the moment of burial."""
    ids = [buried(producer, undertaker, f"{number}") for number in range(5)]
    other = buried(producer, Undertaker(client, "n"))

    assert producer.dead_letter_ids() == [other, *reversed(ids)]
    assert [letter.letter_id for letter in producer.dead_letters()] == [other, *reversed(ids)]
    assert [letter.letter_id for letter in producer.dead_letters(limit=2, offset=2)] == [ids[3], ids[2]]
    assert [letter.letter_id for letter in producer.dead_letters(model="n")] == [other]
    assert [letter.letter_id for letter in producer.dead_letters(limit=2, offset=1, model="m")] == [ids[3], ids[2]]
    assert producer.dead_letters(model="unheard-of") == []


def test_a_replayed_job_is_queued_as_if_it_were_new(
    client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """The very same message in its lane, a worker woken, its failure and its attempts forgotten, the letter gone."""
    letter = producer.dead_letter(buried(producer, undertaker))
    client.hset(keys.job_record(letter.letter_id), mapping={"state": "failed", "worker": "w@h", "started_at": "1.5"})
    client.expire(keys.job_record(letter.letter_id), 10)
    client.delete(NAMES.doorbell)

    assert producer.replay_dead_letter(letter.letter_id) == letter.job_id

    assert client.lrange(keys.lane("m", Priority.BATCH), 0, -1) == [letter.message]
    assert client.llen(NAMES.doorbell) == 1
    status = producer.status(letter.letter_id)
    assert (status.state, status.worker, status.started_at, status.failure) == (JobState.QUEUED, None, None, None)
    assert client.ttl(keys.job_record(letter.letter_id)) > 10
    with pytest.raises(ResultNotReady):
        producer.result(letter.letter_id, timeout_seconds=0)
    assert client.exists(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX) == 0
    claimed = undertaker.claim()
    assert (claimed.delivery, claimed.history) == (1, ())


def test_a_replay_forgets_a_cancel(client: redis.Redis, producer: Producer, undertaker: Undertaker) -> None:
    """Otherwise the job would be cancelled before it runs."""
    letter_id = buried(producer, undertaker)
    client.hset(NAMES.cancels, mapping={letter_id: "token", "another": "token"})

    producer.replay_dead_letter(letter_id)

    assert client.hkeys(NAMES.cancels) == [b"another"]


def test_a_job_whose_record_has_expired_is_replayed_all_the_same(
    client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """The message is all that it takes; no record is made up."""
    letter_id = buried(producer, undertaker)
    client.delete(keys.job_record(letter_id))

    producer.replay_dead_letter(letter_id)

    assert not client.exists(keys.job_record(letter_id))
    assert undertaker.claim_job() == letter_id


def test_a_letter_is_replayed_once_however_many_ask(producer: Producer, undertaker: Undertaker) -> None:
    """Two operators at one time do not make two jobs."""
    letter_id = buried(producer, undertaker)

    def replay(_: int) -> str:
        try:
            return producer.replay_dead_letter(letter_id)
        except UnknownDeadLetter:
            return "too late"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(replay, range(8)))

    assert outcomes == sorted([letter_id, *["too late"] * 7])
    assert undertaker.claim_job() == letter_id


def test_a_job_that_dies_again_after_its_replay_has_a_letter_again(producer: Producer, undertaker: Undertaker) -> None:
    """And its caller is told again."""
    letter_id = buried(producer, undertaker)
    producer.replay_dead_letter(letter_id)

    assert undertaker.poison() == letter_id
    assert producer.dead_letter_ids() == [letter_id]
    with pytest.raises(InferenceFailed, match="it kills engines"):
        producer.result(letter_id, timeout_seconds=0)


def test_a_foreign_key_in_the_place_of_a_lane_keeps_the_letter(
    client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """Nothing is half-replayed."""
    letter_id = buried(producer, undertaker)
    client.set(keys.lane("m", Priority.BATCH), "not a list")

    with pytest.raises(FleetUnreachable, match="WRONGTYPE"):
        producer.replay_dead_letter(letter_id)
    assert producer.dead_letter(letter_id).job_id == letter_id
    with pytest.raises(InferenceFailed, match="it kills engines"):
        producer.result(letter_id, timeout_seconds=0)


def test_letters_are_purged_by_id_or_all_at_once(
    client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """Counting those that were there; the callers' answers stay."""
    ids = [buried(producer, undertaker) for _ in range(60)]

    assert producer.purge_dead_letters([]) == 0
    assert producer.purge_dead_letters([*ids[:55], "no-such-letter"]) == 55
    assert producer.dead_letter_ids() == list(reversed(ids[55:]))
    assert producer.purge_all_dead_letters() == 5
    assert producer.purge_all_dead_letters() == 0
    assert client.exists(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX) == 0
    with pytest.raises(InferenceFailed, match="it kills engines"):
        producer.result(ids[0], timeout_seconds=0)


def test_a_letter_that_is_not_there_is_an_error(producer: Producer) -> None:
    """Looked up and replayed."""
    for ask in (producer.dead_letter, producer.replay_dead_letter):
        with pytest.raises(UnknownDeadLetter, match="no dead letter 'no-such-letter'"):
            ask("no-such-letter")


async def test_the_asyncio_producer_does_all_of_it_with_the_same_meaning(
    redis_url: str, client: redis.Redis, producer: Producer, undertaker: Undertaker
) -> None:
    """List, show, replay, purge."""
    first, second = (buried(producer, undertaker) for _ in range(2))
    unreadable = undertaker.quarantine(b"not JSON")
    client.script_flush()
    async with AsyncProducer(redis_url) as asynchronous:
        assert await asynchronous.dead_letters(limit=2) == producer.dead_letters(limit=2)
        assert await asynchronous.dead_letter_ids() == [unreadable, second, first]
        assert (await asynchronous.dead_letter(first)).job_id == first
        assert await asynchronous.replay_dead_letter(first) == first
        with pytest.raises(UnknownDeadLetter):
            await asynchronous.replay_dead_letter(first)
        with pytest.raises(NotReplayable):
            await asynchronous.replay_dead_letter(unreadable)
        assert await asynchronous.purge_dead_letters([second, first]) == 1
        assert await asynchronous.purge_all_dead_letters() == 1
    assert undertaker.claim_job() == first
