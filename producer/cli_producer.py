"""The producer of one command."""

from producer.client import Producer
from producer.errors import InvalidRequest


def open_producer(redis_url: str) -> Producer:
    """A producer for ``--redis-url``; the caller closes it.

    Raises:
        InvalidRequest: it is no address.
    """
    try:
        return Producer(redis_url)
    except ValueError as error:
        raise InvalidRequest(f"--redis-url: {error}") from error
