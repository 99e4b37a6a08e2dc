"""The jobs that wait in a lane, wherever in it."""

import json
from typing import Any

import redis

from producer import keys
from producer.contract import Priority


def queued(client: redis.Redis, model: str = "m", priority: Priority = Priority.NORMAL) -> list[dict[str, Any]]:
    """Messages, the oldest first: those of the lane's list, then those in flows."""
    step = keys.PRIORITY_STEPS[priority]
    listed: Any = client.lrange(keys.lane(model, priority), 0, -1)
    waiting: Any = client.hgetall(keys.QueueKeys(model).waiting)
    entries = [(_text(number), *_text(entry).split("\n", 1)) for number, entry in waiting.items()]
    in_flows = [message for _, place, message in sorted(entries) if place.startswith(f"{step}|")]
    return [json.loads(message) for message in [*reversed(listed), *in_flows]]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
