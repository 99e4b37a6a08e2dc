"""The producer of one command, or its bare connection."""

from redis import Redis

from producer.client import Producer
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS
from producer.errors import InvalidRequest
from producer.redis_client import connect


def open_producer(redis_url: str) -> Producer:
    """A producer for ``--redis-url``; the caller closes it.

    Raises:
        InvalidRequest: it is no address.
    """
    try:
        return Producer(redis_url)
    except ValueError as error:
        raise InvalidRequest(f"--redis-url: {error}") from error


def open_client(redis_url: str) -> Redis:
    """A connection to ``--redis-url``; the caller closes it.

    Raises:
        InvalidRequest: it is no address.
    """
    try:
        return connect(
            redis_url,
            connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
            socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS,
        )
    except ValueError as error:
        raise InvalidRequest(f"--redis-url: {error}") from error
