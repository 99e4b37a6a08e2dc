"""What the worker writes into streams, on a real server: fenced by leases, in order, through outages."""

from collections.abc import Iterator

import pytest
import redis

from producer import keys
from producer.stream_entries import Piece, Said
from tests.deliveries import job_message
from tests.leasing import MODEL, LeaseQueue
from tests.waiting import eventually
from workers.transport.lease_store import Release
from workers.transport.stream_writer import StreamWriter

LIFETIME_SECONDS = 600


def piece(at: int, text: str) -> Piece:
    """A token for each character."""
    return Piece(0, at, text, at, tuple(range(at, at + len(text))))


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """One job waits."""
    with LeaseQueue.at(redis_url) as queue:
        queue.push(job_message("j"))
        yield queue


@pytest.fixture
def writer(queue: LeaseQueue) -> Iterator[StreamWriter]:
    """Runs."""
    writer = StreamWriter(queue.client, MODEL, LIFETIME_SECONDS)
    writer.start()
    yield writer
    writer.stop()


def claimed(queue: LeaseQueue, consumer: str = "one") -> str:
    """The tag of the next delivery."""
    [message] = queue.store(consumer).claim(1, held=0).messages
    return message.tag


def text(said: Said) -> str:
    """The first choice's."""
    return said.choices[0].text if said.choices else ""


def test_what_one_delivery_says_is_written_in_order(queue: LeaseQueue, writer: StreamWriter) -> None:
    """Many pieces in few entries; the stream has a lifetime."""
    tag = claimed(queue)
    for at in range(100):
        writer.add(tag, "j", [piece(at, "x")], 7)
    eventually(lambda: len(text(writer.read("j"))) == 100, what="all is told")
    assert queue.client.xlen(keys.stream("j")) < 50
    assert 0 < queue.client.ttl(keys.stream("j")) <= LIFETIME_SECONDS
    assert writer.read("j").prompt_tokens == 7


def test_a_delivery_that_lost_its_lease_tells_nothing_any_more(queue: LeaseQueue, writer: StreamWriter) -> None:
    """No reader hears two attempts at once."""
    stale = claimed(queue)
    writer.add(stale, "j", [piece(0, "old")], 7)
    eventually(lambda: text(writer.read("j")) == "old", what="it is told")
    queue.store().release([stale], Release.HAND_BACK)
    queue.client.delete(keys.stream("j"))
    tag = claimed(queue, "two")
    writer.add(stale, "j", [piece(3, " words")], 7)
    writer.add(tag, "j", [piece(0, "new")], 7)
    eventually(lambda: text(writer.read("j")) == "new", what="the new attempt is told")
    writer.add(stale, "j", [piece(3, " words")], 7)
    writer.add(tag, "j", [piece(3, " words")], 7)
    eventually(lambda: text(writer.read("j")) == "new words", what="and goes on")
    assert not writer.read("j").has_gap


def test_a_restart_makes_void_what_was_told(queue: LeaseQueue, writer: StreamWriter) -> None:
    """What was not written yet is not written any more."""
    tag = claimed(queue)
    writer.add(tag, "j", [piece(0, "first")], 7)
    eventually(lambda: text(writer.read("j")) == "first", what="it is told")
    writer.restart(tag, "j")
    writer.add(tag, "j", [piece(0, "second")], 7)
    eventually(lambda: text(writer.read("j")) == "second", what="it is told anew")
    assert writer.read("j").restarts == 1


def test_after_an_outage_everything_is_told(queue: LeaseQueue, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and in order; the log says once that streams wait."""
    tag = claimed(queue)
    writer = StreamWriter(queue.client, MODEL, LIFETIME_SECONDS)
    run = writer._script
    failures = iter([False, True, True, True])

    def flaky(*arguments: object) -> object:
        if next(failures, False):
            run(*arguments)  # it acted, and its reply was lost
            raise redis.exceptions.ConnectionError("gone")
        return run(*arguments)

    writer._script = flaky  # type: ignore[assignment]
    writer.start()
    for at in range(200):
        writer.add(tag, "j", [piece(at, "x")], 7)
        if at % 50 == 0:
            eventually(lambda: text(writer.read("j")), what="something is told")
    eventually(lambda: len(text(writer.read("j"))) == 200, what="all is told")
    writer.stop()
    said = writer.read("j")
    assert said.choices[0].token_ids == list(range(200))
    assert caplog.text.count("streams wait") <= 3


async def test_a_delivery_knows_what_earlier_ones_told(queue: LeaseQueue, writer: StreamWriter) -> None:
    """By the tokens and the text; nothing of a job that said nothing."""
    teller = writer.teller("j", claimed(queue))
    assert (await teller.said()).choices == {}
    teller.tell([piece(0, "told")], 7)
    eventually(lambda: text(writer.read("j")) == "told", what="it is told")
    said = await teller.said()
    assert (said.choices[0].token_ids, said.choices[0].text) == ([0, 1, 2, 3], "told")
    teller.close()
