"""How many messages are where, by model."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import orjson
from redis import Redis

from producer import keys

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


def count_queues(client: Redis) -> list[QueueCounts]:
    """What is queued for each known model, and for each that has dead letters.

    Raises:
        RedisError: the server could not be reached, or refused.
    """
    dead = Counter(_models_of_letters(client))
    known = {name.decode() for name in cast("list[bytes]", client.hkeys(keys.MODELS))}
    return [_count(client, model, dead[model]) for model in sorted(known | dead.keys())]


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
