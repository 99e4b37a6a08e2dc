"""``fleet doctor``: how long this machine waits for an answer of the server."""

import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Final

from redis import Redis

from producer.doctor import Finding, Level

PINGS: Final = 100
SLOW_MEDIAN_SECONDS: Final = 0.010
"""A job costs its worker and its producer a few questions each, one after the other."""


def check_latency(client: Redis) -> Finding:
    """Ask a hundred times, one after the other.

    Raises:
        RedisError: it could not be reached.
    """
    return judge_latency([_ping_seconds(client) for _ in range(PINGS)])


def judge_latency(seconds: Sequence[float]) -> Finding:
    """What there is to say about these waits."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    median, slowest = cuts[49], cuts[98]
    text = f"PING takes {median * 1000:.2f} ms (median), {slowest * 1000:.2f} ms (99 of 100)"
    if median > SLOW_MEDIAN_SECONDS:
        return Finding(
            Level.WARNING,
            "latency",
            f"{text}: every claim and every result waits for this; run workers near the server, and give the server a "
            "core of its own",
        )
    return Finding(Level.OK, "latency", text)


def _ping_seconds(client: Redis) -> float:
    begun = time.perf_counter()
    client.ping()
    return time.perf_counter() - begun
