"""How fast the queue of a model drains: what the script that finishes jobs counts (``fleet:drained:<model>``)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

BUCKET_SECONDS: Final = 10
"""As ``finish.lua`` has it, and a ring of so many of them and one."""
WINDOW_BUCKETS: Final = 6
LEAST_RETRY_AFTER_SECONDS: Final = 1
MOST_RETRY_AFTER_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class DrainRate:
    """What all workers of a model finish, by Redis' clock: over the last minute, or since its first end in it.

    Jobs count when their outcome is stored, whatever it is; tokens are those of prompts and outputs together.
    """

    jobs_per_second: float
    tokens_per_second: float


def read_rate(entries: Iterable[str | bytes], now: float) -> DrainRate | None:
    """The rate that the ring's entries tell, ``<bucket> <jobs> <tokens>``; None when none is of this minute.

    ``now`` is the server's time in seconds since the epoch.

    The time is counted from the beginning of the first bucket that has something, and is a whole bucket at least, so
    that a fleet that has just begun is called slower than it is, and never faster.
    """
    current = int(now // BUCKET_SECONDS)
    counted = [
        (bucket, jobs, tokens)
        for bucket, jobs, tokens in (tuple(map(int, entry.split())) for entry in entries)
        if current - WINDOW_BUCKETS < bucket <= current
    ]
    if not counted:
        return None
    begun_at = min(bucket for bucket, _, _ in counted) * BUCKET_SECONDS
    seconds = max(now - begun_at, BUCKET_SECONDS)
    jobs, tokens = (sum(entry[part] for entry in counted) for part in (1, 2))
    return DrainRate(jobs / seconds, tokens / seconds)


def read_rates(rings: Mapping[str, Iterable[bytes]], now: float) -> dict[str, DrainRate]:
    """The rates of the models that have one."""
    rates = {model: read_rate(entries, now) for model, entries in rings.items()}
    return {model: rate for model, rate in rates.items() if rate is not None}


def retry_after_seconds(rate: DrainRate | None, places: int, sharers: int = 1) -> int:
    """In how many seconds so many waiting jobs are gone, at this rate divided among tenants who share it equally.

    From 1 to 120; 1 where nothing is known of the rate.
    """
    if rate is None or not rate.jobs_per_second:
        return LEAST_RETRY_AFTER_SECONDS
    seconds = ceil(places * sharers / rate.jobs_per_second)
    return max(LEAST_RETRY_AFTER_SECONDS, min(seconds, MOST_RETRY_AFTER_SECONDS))
