"""A server with workers, and its clients."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.scaling.fleet import Fleet
from benchmarks.scaling.server import own_server
from producer import Producer


@dataclass(frozen=True)
class Stand:
    """See the module."""

    url: str
    fleet: Fleet
    client: redis.Redis
    producer: Producer


@contextmanager
def standing() -> Iterator[Stand]:
    """A stand whose fleet has no workers yet."""
    with (
        own_server() as url,
        tempfile.TemporaryDirectory() as folder,
        Fleet(url, Path(folder)) as fleet,
        Producer(url) as producer,
        redis.Redis.from_url(url) as client,
    ):
        yield Stand(url, fleet, client, producer)
