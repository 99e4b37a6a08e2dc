"""How many messages are where, by model."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import orjson
from redis import Redis

from producer import keys
from producer.registry import read_limits

SCAN_LETTERS: Final = 10
"""Dead letters read at once: each may hold a message of megabytes."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many messages of one model are where."""

    model: str
    waiting: int
    leased: int
    """Claimed by a worker."""
    delayed: int
    """Their time has not come."""
    suspect: int
    """They may have killed an engine, and are run apart."""
    dead: int
    max_waiting: int | None = None
    """The limit of ``waiting``; None for no limit."""


def count_queues(client: Redis) -> list[QueueCounts]:
    """What is queued for each model that is known, has dead letters or has a limit.

    Raises:
        RedisError: the server could not be reached, or refused.
    """
    dead = Counter(_models_of_letters(client))
    known = {name.decode() for name in cast("list[bytes]", client.hkeys(keys.MODELS))}
    limits = read_limits(cast("Mapping[bytes, bytes]", client.hgetall(keys.LIMITS)))
    models = sorted(known | dead.keys() | limits.keys())
    return [replace(_count(client, model, dead[model]), max_waiting=limits.get(model)) for model in models]


def _count(client: Redis, model: str, dead: int) -> QueueCounts:
    names = keys.QueueKeys(model)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zcard(names.leases)
        pipeline.zcard(names.delayed)
        pipeline.llen(names.suspects)
        for lane in keys.all_lanes(model):
            pipeline.llen(lane)
        leased, delayed, suspect, *waiting = pipeline.execute()
    return QueueCounts(model, sum(waiting), leased, delayed, suspect, dead)


def _models_of_letters(client: Redis) -> Iterator[str]:
    for _, letter in client.hscan_iter(keys.DEAD_LETTERS, count=SCAN_LETTERS):
        yield keys.QueueKeys.of_queue(orjson.loads(letter)["queue"]).model
