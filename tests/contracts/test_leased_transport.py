"""Our transport under kombu: who is served, what an acknowledgement means, and what stays as everybody knows it."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery.worker import state as worker_state
from flower.utils.broker import Broker
from flower.utils.broker import Redis as FlowerRedis
from kombu.transport import TRANSPORT_ALIASES, _transport_cache, get_transport_cls
from kombu.transport import redis as kombu_redis

from producer import Priority, keys
from tests.contracts.leased_transport import Consuming, installed, leased, publish, send_as_stock, stock
from tests.deliveries import SUBMISSION, HeldQueue, job_message
from tests.leasing import end
from workers.transport.channel import LeaseChannel

OTHER_QUEUE = "other"


@pytest.fixture
def held(redis_url: str) -> Iterator[HeldQueue]:
    """The transport is installed; nothing is held."""
    with installed(redis_url) as held:
        yield held


@pytest.fixture
def consuming(held: HeldQueue, redis_url: str) -> Iterator[Consuming]:
    """A consumer of the fleet's queue."""
    assert len(held.ledger) == 0
    with leased(redis_url) as connection:
        yield Consuming(connection)


def take(consuming: Consuming, count: int) -> list[Any]:
    """The first so many messages."""
    consuming.turn_until(lambda: len(consuming.messages) >= count, "the messages")
    return consuming.messages


# What stays as everybody knows it.


def test_the_aliases_are_ours_while_it_is_installed_and_kombus_again_afterwards(redis_url: str) -> None:
    """Nothing is left behind in the process."""
    names = ("redis", "rediss")
    before = {name: TRANSPORT_ALIASES[name] for name in names}
    assert [get_transport_cls(name) for name in names] == [kombu_redis.Transport] * 2
    with installed(redis_url):
        for name in names:
            found: Any = get_transport_cls(name)
            assert issubclass(found.Channel, LeaseChannel)
    assert {name: TRANSPORT_ALIASES[name] for name in names} == before
    assert not set(names) & _transport_cache.keys()
    assert [get_transport_cls(name) for name in names] == [kombu_redis.Transport] * 2


@pytest.mark.usefixtures("held")
def test_the_address_stays_the_address(redis_url: str) -> None:
    """And Flower knows the broker by it: a class named by its path would make it another scheme."""
    with leased(redis_url) as connection:
        address = connection.as_uri(include_password=True)
        assert address.startswith("redis://")
        assert connection.transport.driver_type == "redis"
        assert isinstance(Broker(address), FlowerRedis)


@pytest.mark.usefixtures("held")
def test_one_client_publishes_for_a_thread(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kombu makes one for each message; another thread has its own."""
    made: list[object] = []

    class Counted(redis.Redis):
        def __init__(self, **options: Any) -> None:  # noqa: ANN401 - redis-py's
            made.append(self)
            super().__init__(**options)

    monkeypatch.setattr(kombu_redis.Channel, "_get_client", lambda _channel: Counted)
    with leased(redis_url) as connection:
        publish(connection, OTHER_QUEUE)
        of_the_channel = len(made) - 1
        for _ in range(99):
            publish(connection, OTHER_QUEUE)
        assert len(made) - of_the_channel == 1
        thread = threading.Thread(target=publish, args=(connection, OTHER_QUEUE))
        thread.start()
        thread.join()
        assert len(made) - of_the_channel == 2


def test_other_queues_are_consumed_as_kombu_does(held: HeldQueue, redis_url: str) -> None:
    """Control messages and their replies are none of ours: no lease, kombu's own acknowledgement."""
    client = held.queue.client
    with leased(redis_url) as connection:
        consuming = Consuming(connection, OTHER_QUEUE)
        publish(connection, OTHER_QUEUE)
        [message] = take(consuming, 1)
        assert (client.hlen("unacked"), len(held.ledger)) == (1, 0)
        message.ack()
        assert client.hlen("unacked") == 0
        publish(connection, OTHER_QUEUE)
        take(consuming, 2)[1].reject(requeue=True)
        assert take(consuming, 3)[2].delivery_tag == consuming.messages[1].delivery_tag


def test_messages_of_a_consumer_that_acknowledges_nothing_are_not_kept(held: HeldQueue, redis_url: str) -> None:
    """Replies of remote control."""
    with leased(redis_url) as connection:
        consuming = Consuming(connection, OTHER_QUEUE, no_ack=True)
        publish(connection, OTHER_QUEUE)
        take(consuming, 1)
    assert held.queue.client.hlen("unacked") == 0


# Who is served.


def test_a_stock_celery_app_is_served(redis_url: str) -> None:
    """One that knows the task's name and nothing else of us; before and while our workers run."""
    send_as_stock(redis_url, "before")
    with installed(redis_url), leased(redis_url) as connection:
        consuming = Consuming(connection)
        take(consuming, 1)
        send_as_stock(redis_url, "meanwhile")
        messages = take(consuming, 2)
        assert consuming.job_ids == ["before", "meanwhile"]
        [arguments, _, _] = messages[0].payload
        assert arguments[0]["prompt"] == "x"


def test_a_stock_kombu_producer_is_served(redis_url: str) -> None:
    """In the order of its priorities."""
    with stock(redis_url) as connection:
        for priority in (9, 6, 3, 0):
            publish(connection, priority=priority, headers={"id": str(priority)})
    with installed(redis_url), leased(redis_url) as connection:
        consuming = Consuming(connection)
        take(consuming, 4)
        assert consuming.job_ids == ["0", "3", "6", "9"]


def test_a_doorbell_wakes_who_waits(held: HeldQueue, consuming: Consuming) -> None:
    """It takes the token, and then claims."""
    consuming.turn()
    assert consuming.channel._in_poll is consuming.channel.client.connection
    held.queue.push(job_message("j"))
    held.queue.client.lpush(held.queue.keys.doorbell, "1")
    take(consuming, 1)
    assert consuming.job_ids == ["j"]
    assert not held.queue.client.exists(held.queue.keys.doorbell)


def test_a_message_without_a_doorbell_waits_for_a_second_at_most(held: HeldQueue, consuming: Consuming) -> None:
    """A stock producer does not ring."""
    consuming.turn()
    held.queue.push(job_message("j"))
    take(consuming, 1)
    assert consuming.job_ids == ["j"]


def test_who_has_room_for_urgent_messages_alone_leaves_the_other_bell_to_others(
    held: HeldQueue, redis_url: str
) -> None:
    """It waits at the urgent one, and takes what rings there."""
    held.queue.push(job_message("a"), job_message("b"), job_message("c"))
    with installed(redis_url, slots=3, reserved_slots=1) as few, leased(redis_url) as connection:
        consuming = Consuming(connection)
        take(consuming, 2)
        consuming.turn()
        assert (consuming.job_ids, few.queue.client.llen(few.queue.keys.doorbell)) == (["a", "b"], 1), "it rang itself"
        few.queue.push(job_message("urgent"), priority=Priority.INTERACTIVE)
        few.queue.client.lpush(few.queue.keys.urgent_doorbell, "1")
        take(consuming, 3)
        assert consuming.job_ids == ["a", "b", "urgent"]


def test_room_for_any_message_is_used_while_urgent_ones_are_waited_for(held: HeldQueue, redis_url: str) -> None:
    """At once, not when the wait is over; and when nothing is there to take, any bell ends the wait from then on."""
    held.queue.push(*(job_message(name) for name in "abc"))
    with installed(redis_url, slots=3, reserved_slots=1) as few, leased(redis_url) as connection:
        consuming = Consuming(connection)
        poll_start = connection.transport.cycle.on_poll_start
        take(consuming, 2)
        consuming.turn()
        assert consuming.channel._in_poll
        consuming.messages[0].ack()
        poll_start()
        assert consuming.job_ids == ["a", "b", "c"]
        consuming.messages[1].ack()
        poll_start()
        few.queue.client.lpush(few.queue.keys.doorbell, "1")
        few.queue.push(job_message("d"))
        take(consuming, 4)
        assert consuming.job_ids == ["a", "b", "c", "d"]


def test_a_full_process_takes_nothing(held: HeldQueue, redis_url: str) -> None:
    """It neither claims nor waits at the bell, until something is done."""
    held.queue.push(job_message("a"), job_message("b"), job_message("c"))
    with installed(redis_url, slots=2), leased(redis_url) as connection:
        consuming = Consuming(connection)
        take(consuming, 2)
        consuming.turn()
        assert (consuming.job_ids, bool(consuming.channel._in_poll)) == (["a", "b"], False)
        assert (consuming.channel.qos.can_consume(), consuming.channel.qos.can_consume_max_estimate()) == (False, 0)
        consuming.messages[0].ack()
        take(consuming, 3)
        assert consuming.job_ids == ["a", "b", "c"]


def test_what_is_no_message_does_not_stop_the_others(held: HeldQueue, consuming: Consuming) -> None:
    """Kombu's own transport would raise out of the worker's event loop, for ever."""
    held.queue.push(job_message("a"), b"{", b"[" * 100_000, job_message("b"))
    take(consuming, 2)
    assert consuming.job_ids == ["a", "b"]
    assert held.queue.client.hlen(keys.DEAD_LETTERS) == 2


def test_a_cancelled_submission_is_revoked_for_the_time_of_its_delivery(held: HeldQueue, redis_url: str) -> None:
    """Celery knows revoked jobs by id alone: a later submission under the same id must not find it there."""
    held.queue.client.hset(held.queue.keys.cancels, "j", SUBMISSION)
    held.queue.push(job_message("j"), job_message("j", token="later"))  # noqa: S106 - no password
    revoked: list[bool] = []
    with leased(redis_url) as connection:
        consuming = Consuming(connection, on_message=lambda _: revoked.append("j" in worker_state.revoked))
        take(consuming, 2)
    assert revoked == [True, False]
    assert "j" not in worker_state.revoked


# What an acknowledgement means.


def test_an_acknowledged_message_leaves_with_the_next_claim(held: HeldQueue, consuming: Consuming) -> None:
    """Its result was stored before, or it has none."""
    held.queue.push(job_message("j"))
    [message] = take(consuming, 1)
    message.ack()
    consuming.channel._brpop_start()
    assert held.queue.leftovers() == []


def test_a_message_that_its_result_has_acknowledged_is_acknowledged_without_effect(
    held: HeldQueue, consuming: Consuming
) -> None:
    """Celery's own acknowledgement comes afterwards."""
    held.queue.push(job_message("j"))
    [message] = take(consuming, 1)
    [entry] = consuming.channel.intake.ledger.entries()
    consuming.channel.intake.store.finish([end(entry.tag, "j")])
    consuming.channel.intake.ledger.drop(entry.tag)
    message.ack()
    consuming.channel._brpop_start()
    assert held.queue.leftovers() == []


@pytest.mark.parametrize("is_requeued", [True, False])
def test_a_rejected_message_goes_back_or_away(held: HeldQueue, consuming: Consuming, is_requeued: bool) -> None:  # noqa: FBT001 - a table
    """Back uncounted, to the place that it came from; or away as if acknowledged."""
    raw = job_message("j")
    held.queue.push(raw)
    [message] = take(consuming, 1)
    consuming.channel.intake.is_claiming = False
    message.reject(requeue=is_requeued)
    consuming.channel.intake.flush()
    assert held.queue.waiting() == ([raw] if is_requeued else [])
    assert held.queue.leftovers() == []


def test_the_end_of_a_channel_gives_nothing_back(held: HeldQueue, redis_url: str) -> None:
    """A lost connection is no reason to run again what is running: kombu would put it into the queue."""
    held.queue.push(job_message("j"))
    with leased(redis_url) as connection:
        consuming = Consuming(connection)
        take(consuming, 1)
        consuming.channel.qos.restore_visible()
        consuming.channel.qos.restore_unacked()
        consuming.channel.close()
    assert held.queue.waiting() == []
    assert held.queue.client.zcard(held.queue.keys.leases) == 1
    assert held.queue.client.hlen("unacked") == 0


def test_a_new_connection_goes_on_with_what_is_held(held: HeldQueue, redis_url: str) -> None:
    """Credit is the process's, and so are acknowledgements: not a connection's."""
    held.queue.push(job_message("a"))
    with leased(redis_url) as connection:
        [message] = take(Consuming(connection), 1)
    with leased(redis_url) as connection:
        consuming = Consuming(connection)
        consuming.turn()
        assert consuming.channel.intake.credit == 7
        consuming.channel.basic_ack(message.delivery_tag)
        assert consuming.channel.intake.credit == 8


def test_a_delivery_that_fails_gives_back_what_is_behind_it(held: HeldQueue, redis_url: str) -> None:
    """At once; the error is kombu's to handle."""

    def fail(_: object) -> None:
        raise OSError("the connection closed")

    held.queue.push(job_message("a"), job_message("b"))
    with leased(redis_url) as connection:
        consuming = Consuming(connection, on_message=fail)
        with pytest.raises(OSError, match="the connection closed"):
            consuming.turn()
    assert [json.loads(message)["headers"]["id"] for message in held.queue.waiting()] == ["b"]


def test_a_server_that_refuses_to_write_counts_as_one_that_is_gone(held: HeldQueue, consuming: Consuming) -> None:
    """Read-only after a failover, say: Celery reconnects then, where any other error would end the worker."""
    held.queue.push(b"{}")
    held.queue.client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(redis.exceptions.ConnectionError, match="NOREPLICAS"):
            consuming.channel._brpop_start()
    finally:
        held.queue.client.config_set("min-replicas-to-write", 0)
    assert isinstance(redis.exceptions.ConnectionError(), consuming.connection.transport.connection_errors)
