"""What ``workers.transport.channel`` relies on in kombu's Redis transport; run before raising kombu's version."""

import inspect
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

import pytest
import redis
from kombu.transport import TRANSPORT_ALIASES, _transport_cache, get_transport_cls
from kombu.transport import redis as kombu_redis

from tests.contracts.leased_transport import QUEUE, Consuming, connect, publish, stock
from workers.transport.channel import LeaseChannel, LeaseQoS
from workers.transport.scripts import BIND_SCRIPT

OTHER_QUEUE = "other"


class SpiedChannel(kombu_redis.Channel):
    """Kombu's own; counts how often it starts to wait."""

    starts = 0

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.starts += 1
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]


class SpiedTransport(kombu_redis.Transport):
    """Kombu's own, with such channels."""

    Channel = SpiedChannel


@contextmanager
def spied(url: str) -> Iterator[Consuming]:
    """A consumer on kombu's own transport."""
    with connect(url, transport=SpiedTransport) as connection:
        yield Consuming(connection, OTHER_QUEUE)


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """Raw access to the server."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_transports_are_found_by_alias_and_an_alias_may_be_callable(monkeypatch: pytest.MonkeyPatch) -> None:
    """``install`` puts a function in the place of a name: kombu calls it, and takes the class that it returns."""
    assert TRANSPORT_ALIASES["redis"] == TRANSPORT_ALIASES["rediss"] == "kombu.transport.redis:Transport"
    monkeypatch.setitem(TRANSPORT_ALIASES, "spied", lambda: SpiedTransport)
    try:
        assert get_transport_cls("spied") is SpiedTransport
    finally:
        _transport_cache.pop("spied", None)


def test_a_transport_that_was_found_once_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """``install`` and ``uninstall`` take it out of ``_transport_cache``."""
    assert get_transport_cls("redis") is _transport_cache["redis"] is kombu_redis.Transport
    monkeypatch.setitem(_transport_cache, "redis", SpiedTransport)
    assert get_transport_cls("redis") is SpiedTransport


@pytest.mark.parametrize(
    ("own", "name"),
    [
        (LeaseChannel, "_brpop_start"),
        (LeaseChannel, "_create_client"),
        (LeaseChannel, "_queue_bind"),
        (LeaseQoS, "append"),
        (LeaseQoS, "ack"),
        (LeaseQoS, "reject"),
        (LeaseQoS, "restore_unacked"),
        (LeaseQoS, "can_consume"),
        (LeaseQoS, "can_consume_max_estimate"),
    ],
)
def test_overridden_methods_take_what_kombu_passes(own: type, name: str) -> None:
    """The same parameters, in the same order."""
    [theirs] = [getattr(base, name) for base in own.__bases__]
    assert list(inspect.signature(vars(own)[name]).parameters) == list(inspect.signature(theirs).parameters)


@pytest.mark.parametrize("name", ["_brpop_read", "_flush_brpop_reauth", "conn_or_acquire", "active_queues", "pool"])
def test_what_our_channel_calls_is_there(name: str) -> None:
    """Under this name."""
    assert hasattr(kombu_redis.Channel, name)


def test_waiting_starts_when_no_wait_is_on_and_something_fits(redis_url: str) -> None:
    """``LeaseChannel`` claims in ``_brpop_start``, which the poller calls before each wait of the event loop."""
    with spied(redis_url) as consuming:
        channel, cycle = consuming.channel, consuming.connection.transport.cycle
        cycle.on_poll_start()
        assert (channel.starts, bool(channel._in_poll)) == (1, True)
        cycle.on_poll_start()
        assert channel.starts == 1
        publish(consuming.connection, OTHER_QUEUE)
        channel.basic_qos(0, 1, apply_global=False)
        consuming.turn_until(lambda: consuming.messages, "the message")
        starts = channel.starts
        assert not channel.qos.can_consume()
        cycle.on_poll_start()
        assert channel.starts == starts
        consuming.messages[0].ack()
        cycle.on_poll_start()
        assert channel.starts == starts + 1


def test_a_wait_that_was_read_is_over(redis_url: str) -> None:
    """``_brpop_read`` clears ``_in_poll`` whether something came or not: the next turn starts another."""
    with spied(redis_url) as consuming:
        channel = consuming.channel
        consuming.connection.transport.cycle.on_poll_start()
        assert channel._in_poll is channel.client.connection
        publish(consuming.connection, OTHER_QUEUE)
        assert channel._brpop_read() is True
        assert not channel._in_poll
        channel._brpop_start(timeout=0.01)
        with pytest.raises(Empty):
            channel._brpop_read()
        assert not channel._in_poll


def test_a_connection_that_closes_takes_its_wait_along(redis_url: str) -> None:
    """``LeaseChannel._brpop_read`` disconnects after an error; the poller then connects and starts anew."""
    with spied(redis_url) as consuming:
        channel, cycle = consuming.channel, consuming.connection.transport.cycle
        cycle.on_poll_start()
        channel._registered = True
        channel.client.connection.disconnect()
        assert not channel._in_poll
        starts = channel.starts
        cycle.on_poll_start()
        assert (channel.starts, bool(channel._in_poll)) == (starts + 1, True)


def test_when_the_wait_was_sent_is_kept_in_monotonic_seconds(redis_url: str) -> None:
    """``LeaseChannel`` sets ``_brpop_sent_at`` likewise: kombu drops a connection that owes an answer for too long."""
    with spied(redis_url) as consuming:
        before = time.monotonic()
        consuming.connection.transport.cycle.on_poll_start()
        assert before <= consuming.channel._brpop_sent_at <= time.monotonic()
        assert consuming.channel.brpop_timeout == 1


def test_delivering_reaches_the_consumer_and_registers_the_message(redis_url: str) -> None:
    """``connection._deliver(message, queue)``: kombu's envelope as a dictionary, the tag inside it."""
    delivery_info = {"exchange": "", "routing_key": OTHER_QUEUE}
    raw = {"body": "[]", "headers": {}, "properties": {"delivery_tag": "t", "delivery_info": delivery_info}}
    with spied(redis_url) as consuming:
        consuming.channel.connection._deliver(raw, OTHER_QUEUE)
        [message] = consuming.messages
        assert (message.delivery_tag, message.acknowledged) == ("t", False)
        assert consuming.channel.qos.get("t") is message
        message.ack()
        consuming.channel.qos._flush()
        with pytest.raises(KeyError):
            consuming.channel.qos.get("t")


def test_kombu_pops_and_registers_afterwards(redis_url: str, client: "redis.Redis") -> None:
    """A worker that dies in between loses the message: why we claim instead."""
    lengths: list[Any] = []
    with stock(redis_url) as connection:
        publish(connection, OTHER_QUEUE)
        consuming = Consuming(connection, OTHER_QUEUE)
        consuming.channel.qos.append = lambda *_: lengths.extend([client.llen(OTHER_QUEUE), client.hlen("unacked")])
        consuming.turn_until(lambda: consuming.messages, "the message")
    assert lengths == [0, 0]


def test_kombu_restores_at_the_end_of_a_channel(redis_url: str, client: "redis.Redis") -> None:
    """``restore_unacked_once``, while ``restore_at_shutdown``: whatever the pool still runs would be run twice."""
    with stock(redis_url) as connection:
        publish(connection, OTHER_QUEUE)
        consuming = Consuming(connection, OTHER_QUEUE)
        consuming.turn_until(lambda: consuming.messages, "the message")
        assert client.llen(OTHER_QUEUE) == 0
        consuming.channel.close()
        assert client.llen(OTHER_QUEUE) == 1


def test_kombu_restores_what_was_not_acknowledged_in_time(redis_url: str, client: "redis.Redis") -> None:
    """``restore_visible``, from a timer and whenever nothing came; by the clock of whoever looks."""
    with stock(redis_url, visibility_timeout=0, unacked_restore_throttle=1) as connection:
        publish(connection, OTHER_QUEUE)
        consuming = Consuming(connection, OTHER_QUEUE)
        consuming.turn_until(lambda: consuming.messages, "the message")
        consuming.channel.qos.restore_visible(interval=1)
        assert client.llen(OTHER_QUEUE) == 1


def test_kombu_makes_a_client_for_every_publish(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``_create_client``, from the class that ``Channel.Client`` is: see ``LeaseChannel._create_client``."""
    made: list[object] = []

    class Counted(redis.Redis):
        def __init__(self, **options: Any) -> None:  # noqa: ANN401 - redis-py's
            made.append(self)
            super().__init__(**options)

    monkeypatch.setattr(kombu_redis.Channel, "_get_client", lambda _channel: Counted)
    with stock(redis_url) as connection:
        for _ in range(100):
            publish(connection)
    assert len(made) >= 100


def test_an_unacknowledged_message_is_kept_under_its_tag(redis_url: str, client: "redis.Redis") -> None:
    """Which stays the sender's: whoever gets it again acknowledges the other delivery with it."""
    with stock(redis_url) as connection:
        publish(connection, OTHER_QUEUE)
        [raw] = client.lrange(OTHER_QUEUE, 0, -1)
        consuming = Consuming(connection, OTHER_QUEUE)
        consuming.turn_until(lambda: consuming.messages, "the message")
        assert consuming.messages[0].delivery_tag == json.loads(raw)["properties"]["delivery_tag"]


def test_kombu_writes_to_the_lanes_that_we_claim_from(redis_url: str, client: "redis.Redis") -> None:
    """By LPUSH, a JSON object with body, headers and properties: ``workers.transport.arrivals`` reads it."""
    with stock(redis_url) as connection:
        publish(connection, priority=6)
        publish(connection)
    assert client.exists(QUEUE, f"{QUEUE}\x06\x166") == 2
    message = json.loads(client.lrange(QUEUE, 0, -1)[0])
    assert {"body", "headers", "properties"} <= message.keys()
    assert {"delivery_tag", "delivery_info", "body_encoding"} <= message["properties"].keys()


def test_our_script_notes_an_expiring_binding_as_kombus_does(redis_url: str) -> None:
    """The same arguments, the same keys afterwards; ours is not refused by a server that is out of memory."""
    ends = []
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for text in (kombu_redis.REFRESH_BINDING, BIND_SCRIPT):
            client.register_script(text)(keys=["bindings", "deadlines"], args=["key|queue", "exchange", 60_000])
            ends.append((client.smembers("bindings"), round(client.zscore("deadlines", "exchange") / 60_000)))
            client.delete("bindings", "deadlines")
        assert ends[0] == ends[1]
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            client.register_script(BIND_SCRIPT)(keys=["bindings", "staying"], args=["key|queue", "exchange", ""])
        finally:
            client.config_set("maxmemory", before)
        assert client.smembers("bindings") == client.smembers("staying") == {"key|queue"}
