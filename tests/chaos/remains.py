"""What is left in Redis: every key of a queue that must be empty when its jobs have ended."""

from typing import Any, Final, cast

import orjson
import redis

from producer import keys
from tests.chaos.stock import UNACKED, UNACKED_INDEX

_LENGTH: Final = {b"list": "llen", b"hash": "hlen", b"zset": "zcard", b"string": "exists"}


def transient_keys(model: str) -> list[str]:
    """Those that hold jobs, or something about jobs that have not ended."""
    names = keys.QueueKeys(model)
    orders = [names.order(step) for step in keys.PRIORITY_STEPS.values()]
    flows = [*orders, names.waiting, names.charged, names.running]
    aside = [names.leases, names.leased, names.redelivery, names.suspects, names.isolation, names.delayed]
    return [
        *keys.all_lanes(model),
        *flows,
        *aside,
        names.cancels,
        keys.DEAD_LETTERS,
        keys.DEAD_LETTER_INDEX,
        UNACKED,
        UNACKED_INDEX,
    ]


def residue_of(client: "redis.Redis", model: str) -> dict[str, int]:
    """Entries in each of them; 0 where there is no such key."""
    return {name: _length(client, name) for name in transient_keys(model)}


def _length(client: "redis.Redis", name: str) -> int:
    command = _LENGTH.get(cast("bytes", client.type(name)))
    return int(getattr(client, command)(name)) if command else 0


def job_ids_in(client: "redis.Redis", model: str) -> frozenset[str]:
    """Ids of the jobs whose message is in one of these places, by either transport's way of keeping it."""
    names = keys.QueueKeys(model)
    messages: list[Any] = [
        message
        for name in (*(keys.lane_of_step(model, step) for step in keys.PRIORITY_STEPS.values()), names.suspects)
        for message in client.lrange(name, 0, -1)
    ]
    messages += [*client.hvals(names.leased), *client.hvals(names.waiting), *client.zrange(names.delayed, 0, -1)]
    ids = {_job_id(message.partition(b"\n")[2] or message) for message in messages}
    # Stock kombu keeps [message, exchange, routing key] by delivery tag.
    ids |= {orjson.loads(entry)[0]["headers"]["id"] for entry in client.hvals(UNACKED)}
    return frozenset(ids)


def _job_id(message: bytes) -> str:
    return str(orjson.loads(message)["headers"]["id"])
