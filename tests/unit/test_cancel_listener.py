"""Hearing of cancellations: the right submission, whatever else is said on the channel, and after a lost connection."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.deliveries import SUBMISSION, HeldQueue
from tests.waiting import eventually
from workers.transport import cancel_listener
from workers.transport.cancel_listener import CancelListener
from workers.transport.ledger import Held


@dataclass
class Desk(HeldQueue):
    """Jobs that are held, and the cancellations that were heard."""

    heard: list[Held] = field(default_factory=list)

    def on_cancelled(self, held: Held) -> None:
        """What the pool would do."""
        self.heard.append(held)
        if held.job_id == "harmful":
            raise RuntimeError("a bug in the pool")

    def say(self, data: object) -> None:
        """Announce anything on the channel, once somebody listens: a listener may be between two connections."""
        text = data if isinstance(data, bytes) else json.dumps(data)
        channel = self.queue.keys.cancelled_channel
        eventually(lambda: self.queue.client.publish(channel, text) == 1, what="somebody hears it")

    def cancel(self, job_id: str, token: str = SUBMISSION) -> None:
        """Announce a cancellation as the producer does."""
        self.say({"job_id": job_id, "submission_token": token})

    @property
    def is_listened_to(self) -> bool:
        """Whether somebody has subscribed."""
        channel = self.queue.keys.cancelled_channel
        return self.queue.client.pubsub_numsub(channel) == [(channel.encode(), 1)]


@pytest.fixture
def desk(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Nothing is held; a listener ends soon after it is told to."""
    monkeypatch.setattr(cancel_listener, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(cancel_listener, "RECONNECT_SECONDS", 0.05)
    with Desk.at(redis_url) as desk:
        yield desk


@contextmanager
def listening(desk: Desk) -> Iterator[None]:
    """A listener that has subscribed; its thread ends."""
    listener = CancelListener(desk.queue.client, desk.queue.keys, desk.ledger, desk.on_cancelled)
    listener.start()
    try:
        eventually(lambda: desk.is_listened_to, what="the subscription")
        yield
    finally:
        listener.stop()
    assert "cancel-listener" not in {thread.name for thread in threading.enumerate()}


def test_a_cancelled_job_is_told_to_the_pool(desk: Desk) -> None:
    """And to nobody the others."""
    held, other = desk.hold("j", "other")
    for entry in (held, other):
        desk.ledger.enter_pool(entry.tag, object())
    with listening(desk):
        desk.cancel("j")
        eventually(lambda: desk.heard == [held], what="the cancellation")
    assert (held.is_cancelled, other.is_cancelled) == (True, False)


def test_a_cancelled_job_on_its_way_to_the_pool_is_marked(desk: Desk) -> None:
    """The pool sees the mark and does not start it."""
    [held] = desk.hold("j")
    with listening(desk):
        desk.cancel("j")
        eventually(lambda: held.is_cancelled, what="the mark")
    assert desk.heard == []


@pytest.mark.parametrize("token", ["of an earlier submission", "", None, 5, [SUBMISSION]])
def test_a_cancel_of_another_submission_is_none(desk: Desk, token: object) -> None:
    """The same id may have been submitted anew; a stock sender's job has no submission at all."""
    held, stock, last = desk.hold("j", "stock", "last")
    stock.submission_token = None
    for entry in (held, stock, last):
        desk.ledger.enter_pool(entry.tag, object())
    with listening(desk):
        for job_id in ("j", "stock"):
            desk.say({"job_id": job_id, "submission_token": token})
        desk.cancel("last")
        eventually(lambda: last.is_cancelled, what="the cancellation behind it")
    assert desk.heard == [last]
    assert (held.is_cancelled, stock.is_cancelled) == (False, False)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b"{}",
        b'{"job_id": "j"}',
        b'{"job_id": ["j"], "submission_token": "x"}',
        b'{"job_id": null, "submission_token": null}',
        b"[" * 100_000,
    ],
)
def test_garbage_on_the_channel_does_no_harm(desk: Desk, garbage: bytes) -> None:
    """Anybody can publish there: the next cancellation is heard over the same connection."""
    [held] = desk.hold("j")
    with listening(desk):
        before = desk.queue.client.client_list(_type="pubsub")
        desk.say(garbage)
        desk.cancel("j")
        eventually(lambda: held.is_cancelled, what="the cancellation behind it")
        assert [one["id"] for one in desk.queue.client.client_list(_type="pubsub")] == [one["id"] for one in before]


def test_a_job_that_is_not_here_is_somebody_elses(desk: Desk) -> None:
    """Every worker of the queue hears every cancellation."""
    [held] = desk.hold("j")
    with listening(desk):
        desk.cancel("elsewhere")
        desk.cancel("j")
        eventually(lambda: held.is_cancelled, what="the cancellation behind it")
    assert desk.heard == []


def test_after_a_lost_connection_it_listens_again(desk: Desk) -> None:
    """The server, or something on the way, cut it."""
    [held] = desk.hold("j")
    with listening(desk):
        [before] = desk.queue.client.client_list(_type="pubsub")
        desk.queue.client.client_kill_filter(_id=before["id"])
        eventually(
            lambda: [one["id"] != before["id"] for one in desk.queue.client.client_list(_type="pubsub")] == [True],
            what="a new connection",
        )
        eventually(lambda: desk.is_listened_to, what="a new subscription")
        desk.cancel("j")
        eventually(lambda: held.is_cancelled, what="the cancellation")


def test_a_pool_that_fails_does_not_end_the_thread(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that ended in silence would leave every cancellation to the keeper."""
    harmful, held = desk.hold("harmful", "j")

    for entry in (harmful, held):
        desk.ledger.enter_pool(entry.tag, object())
    with listening(desk):
        desk.cancel("harmful")
        eventually(lambda: "a bug in the pool" in caplog.text and desk.is_listened_to, what="it listens again")
        desk.cancel("j")
        eventually(lambda: desk.heard == [harmful, held], what="the cancellation behind it")
