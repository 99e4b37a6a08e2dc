"""A server that is there and does not write: kombu hears of it as of one that is gone, and comes again."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from flower.utils.broker import Broker, RedisSentinel
from kombu.transport import get_transport_cls
from kombu.transport import redis as kombu_redis

from tests.contracts.leased_transport import Consuming, installed, leased, publish
from tests.deliveries import HeldQueue
from tests.waiting import eventually
from workers.transport.broker_address import broker_settings
from workers.transport.broker_connection import PatientMasterConnection, WritesRefused
from workers.transport.channel import LeaseChannel


@pytest.fixture
def consuming(redis_url: str) -> Iterator[Consuming]:
    """A consumer of the fleet's queue over our transport."""
    with installed(redis_url), leased(redis_url) as connection:
        yield Consuming(connection)


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    """An operator; what was set is as it was afterwards."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.config_set("min-replicas-to-write", 0)
        client.replicaof("NO", "ONE")


def test_publishing_to_a_server_that_does_not_write_is_a_connection_error(
    consuming: Consuming, client: "redis.Redis"
) -> None:
    """So that Celery publishes a chain's next task again, as for a server that is gone."""
    client.config_set("min-replicas-to-write", 1)
    with pytest.raises(WritesRefused, match="NOREPLICAS") as refusal:
        publish(consuming.connection)
    assert isinstance(refusal.value, consuming.connection.recoverable_connection_errors)
    client.config_set("min-replicas-to-write", 0)
    publish(consuming.connection)
    assert client.llen(consuming.queue) == 1


def test_declaring_a_queue_on_a_server_that_does_not_write_is_a_connection_error(
    consuming: Consuming, client: "redis.Redis"
) -> None:
    """As a worker does that connects again; otherwise it would end."""
    client.config_set("min-replicas-to-write", 1)
    with pytest.raises(WritesRefused):
        consuming.connection.SimpleQueue("other")


def test_a_wait_that_ends_because_the_master_is_none_any_more_is_a_connection_error(
    consuming: Consuming, client: "redis.Redis"
) -> None:
    """``UNBLOCKED``: each idle worker gets it at a failover."""
    consuming.connection.transport.cycle.on_poll_start()
    eventually(lambda: client.info("clients")["blocked_clients"] == 1, what="the consumer waits")
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(WritesRefused, match="UNBLOCKED"):
        consuming.channel._brpop_read()
    assert not consuming.channel._in_poll


def test_other_refusals_stay_what_they_are(consuming: Consuming, client: "redis.Redis") -> None:
    """A key of the wrong type does not become another by waiting."""
    client.set(consuming.queue, "x")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        publish(consuming.connection)


def test_sentinel_addresses_have_the_same_transport_over_kombus_for_sentinels(held: HeldQueue) -> None:
    """And kombu's own again afterwards: see ``test_the_aliases_are_ours_while_it_is_installed``."""
    assert len(held.ledger) == 0
    transport: Any = get_transport_cls("sentinel")
    channel = transport.Channel
    assert issubclass(channel, LeaseChannel)
    assert issubclass(channel, kombu_redis.SentinelChannel)
    assert channel.connection_class is PatientMasterConnection


@pytest.fixture
def held(redis_url: str) -> Iterator[HeldQueue]:
    """The transport is installed; nothing is held."""
    with installed(redis_url) as held:
        yield held


def test_no_retries_is_said_by_none() -> None:
    """To redis-py, whose clients try three more times when they are told nothing; an object could not be shown."""
    with redis.Redis(retry=None) as client:  # type: ignore[arg-type]  # its hints leave this out
        assert client.connection_pool.make_connection().retry.get_retries() == 0


def test_flower_knows_sentinel_addresses() -> None:
    """It asks the first sentinel, for database 0, whatever the address says."""
    settings = broker_settings("sentinel://a,b/main/0", {}, 2.0)
    broker = Broker(settings["broker_url"].split(";")[0], broker_options=settings["broker_transport_options"])
    assert isinstance(broker, RedisSentinel)
    assert broker.master_name == "main"
