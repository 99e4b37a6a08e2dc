"""What a claim costs, and what a job weighs, while more and more of them wait."""

import time
from collections.abc import Sequence
from typing import Any

import redis

from benchmarks.scaling.jobs import MODEL, submit
from benchmarks.scaling.server import Meter, own_server, usage, wait_for_background_work
from producer import Producer
from workers.bench.figures import percentile
from workers.transport.drain_policy import Room
from workers.transport.lease_store import LeasePolicy, LeaseStore, Release

MILLISECONDS = 1000
CREDITS = (1, 64)
RECENT_PREFIXES = 8
TAKEN_SHARE = 0.1
"""Of the queue, before everything is handed back: so its depth hardly changes while it is measured."""
RELEASED_AT_ONCE = 100


def measure(kinds: Sequence[str], depths: Sequence[int], samples: int) -> list[dict[str, Any]]:
    """One row per kind and depth."""
    rows = []
    for kind in kinds:
        with own_server() as url, Producer(url) as producer, redis.Redis.from_url(url) as client:
            producer.declare_model(MODEL)
            store = LeaseStore(client, MODEL, LeasePolicy(lease_seconds=3600.0), consumer="one", worker="one@here")
            waiting, empty = 0, usage(client)
            for depth in sorted(depths):
                submit(producer, kind, depth - waiting)
                waiting = depth
                bytes_per_job = (usage(client) - empty).memory_bytes / depth
                wait_for_background_work(client)
                row = {"kind": kind, "depth": depth, "memory_bytes_per_job": round(bytes_per_job)}
                rows.append(row | _claims(store, client, depth, samples))
    return rows


def _claims(store: LeaseStore, client: redis.Redis, depth: int, samples: int) -> dict[str, Any]:
    first = store.claim(RECENT_PREFIXES, 0).messages
    store.release([message.tag for message in first], Release.HAND_BACK)
    room = Room(recent_prefixes=tuple({message.place.prefix for message in first if message.place.prefix}))
    figures: dict[str, Any] = {}
    for credit in CREDITS:
        figures |= {
            f"claim_{credit}_{name}": value for name, value in _claim(store, client, (credit, depth, samples), room)
        }
    return figures


def _claim(
    store: LeaseStore, client: redis.Redis, plan: tuple[int, int, int], room: Room
) -> Sequence[tuple[str, float]]:
    credit, depth, samples = plan
    samples = samples if credit == 1 else max(1, samples // 5)
    claims_per_round = max(1, int(depth * TAKEN_SHARE) // credit)
    seconds: list[float] = []
    jobs, meter = 0, Meter(client)
    while len(seconds) < samples:
        tags: list[str] = []
        with meter.running():
            for _ in range(min(claims_per_round, samples - len(seconds))):
                began_at = time.perf_counter()
                messages = store.claim(credit, 0, (), room).messages
                seconds.append(time.perf_counter() - began_at)
                tags += [message.tag for message in messages]
        jobs += len(tags)
        # The last claimed first, so that each group comes to stand before the one that was claimed after it.
        for end in range(len(tags), 0, -RELEASED_AT_ONCE):
            store.release(tags[max(0, end - RELEASED_AT_ONCE) : end], Release.HAND_BACK)
    return (
        ("jobs_mean", round(jobs / len(seconds), 1)),
        ("p50_ms", round(percentile(seconds, 0.50) * MILLISECONDS, 3)),
        ("p99_ms", round(percentile(seconds, 0.99) * MILLISECONDS, 3)),
        ("server_us", meter.microseconds_per(len(seconds))),
    )
