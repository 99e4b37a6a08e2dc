"""One client for every form of the fleet's address: ``redis://``, ``rediss://``, ``unix://`` and ``sentinel://``."""

from typing import Any, Final

from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.cancellable import cancellable
from producer.sentinel_address import SentinelAddress, names_sentinels
from producer.sentinels import async_master_client, master_client
from producer.tls_options import tls_options

MAX_ASYNC_CONNECTIONS: Final = 32
"""Callers share this many connections; a thousand that submit at once queue for them."""
MAX_CONNECTIONS: Final = 10_000
"""Of threads, each has its own while it talks or waits, two at most; the client library would refuse the 101st, and so
a submission beside a hundred that wait. Redis itself takes 10,000 clients unless told otherwise (``maxclients``)."""


def connect(
    redis_url: str, *, connect_timeout_seconds: float, socket_timeout_seconds: float, retries: int = 0
) -> Redis:
    """A client; nothing is connected before its first command. Threads may share it.

    ``retries`` are the library's, at once and on a new connection: none, where it should say soon that Redis is away.

    Raises:
        ValueError: it is no address.
    """
    arguments: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_seconds,
        "socket_timeout": socket_timeout_seconds,
        "retry": Retry(NoBackoff(), retries),
        "max_connections": MAX_CONNECTIONS,
    }
    if names_sentinels(redis_url):
        return master_client(SentinelAddress.parsed(redis_url), arguments)
    tls_options(redis_url)  # which refuses what the library would hear of with the first command
    return Redis.from_url(redis_url, **arguments)


def async_connect(redis_url: str, *, connect_timeout_seconds: float, socket_timeout_seconds: float) -> AsyncRedis:
    """A client for one event loop; nothing is connected before its first command.

    Raises:
        ValueError: it is no address.
    """
    arguments: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_seconds,
        "socket_timeout": socket_timeout_seconds,
        "retry": AsyncRetry(NoBackoff(), 0),
        "max_connections": MAX_ASYNC_CONNECTIONS,
        "timeout": socket_timeout_seconds,
    }
    if names_sentinels(redis_url):
        return async_master_client(SentinelAddress.parsed(redis_url), arguments)
    tls_options(redis_url)
    pool = BlockingConnectionPool.from_url(redis_url, **arguments)
    pool.connection_class = cancellable(pool.connection_class)
    return AsyncRedis.from_pool(pool)


def database_of(client: Redis | AsyncRedis) -> int:
    """Number of the Redis database that the client works on."""
    return int(client.get_connection_kwargs().get("db") or 0)
