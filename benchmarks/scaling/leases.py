"""What keeping leases costs while more and more of them are held, by others too; and when many end at once."""

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis

from benchmarks.scaling.jobs import MODEL, submit
from benchmarks.scaling.server import Meter, own_server, wait_for_background_work
from producer import Producer, keys
from workers.transport.lease_store import LeasePolicy, LeaseStore, Release

OWN_LEASES = 256
"""What one worker holds."""
CLAIM_JOBS = 64
LONG_AGO = 0.0
MOST_REAP_SECONDS = 10.0
"""Of the server's CPU time; what is left then is left."""
MICROSECONDS = 1e6
POLICY = LeasePolicy(lease_seconds=3600.0)


def measure(held_counts: Sequence[int], samples: int) -> list[dict[str, Any]]:
    """One row per number of leases that all workers of one queue hold together."""
    rows = []
    for held in sorted(held_counts):
        with own_server() as url, Producer(url) as producer, redis.Redis.from_url(url) as client:
            producer.declare_model(MODEL)
            others = max(0, held - OWN_LEASES)
            submit(producer, "plain", held)
            own = _store(client, "own")
            own_tags = _take(own, min(held, OWN_LEASES))
            _take_by_workers(client, others)
            wait_for_background_work(client)
            row = {"held": held} | _steady(client, own, own_tags, samples)
            rows.append(row | _when_all_others_die(client, own, others))
    return rows


def _store(client: redis.Redis, name: str) -> LeaseStore:
    return LeaseStore(client, MODEL, POLICY, consumer=name, worker=f"{name}@here")


def _take(store: LeaseStore, count: int) -> list[str]:
    tags: list[str] = []
    while len(tags) < count:
        tags += [message.tag for message in store.claim(min(CLAIM_JOBS, count - len(tags)), len(tags)).messages]
    return tags


def _take_by_workers(client: redis.Redis, count: int) -> None:
    for number in itertools.count():
        if number * OWN_LEASES >= count:
            return
        _take(_store(client, f"other-{number}"), min(OWN_LEASES, count - number * OWN_LEASES))


def _steady(client: redis.Redis, own: LeaseStore, tags: Sequence[str], samples: int) -> dict[str, Any]:
    meter, isolation = Meter(client), keys.QueueKeys(MODEL).isolation
    figures: dict[str, Any] = {"own_leases": len(tags)}
    calls: dict[str, Callable[[], object]] = {
        "renew_own": partial(own.renew, tags),
        "reap_nothing": own.reap,
        "own_tags": own.own_tags,
    }
    for name, call in calls.items():
        began_at = time.process_time()
        with meter.running():
            for _ in range(samples):
                call()
        figures[f"{name}_server_us"] = meter.microseconds_per(samples)
        figures[f"{name}_worker_us"] = round((time.process_time() - began_at) * MICROSECONDS / samples, 1)
    given_back = tags[:samples]
    for tag in given_back:
        # Only who runs suspects apart, and gives some back, is asked whether it holds more.
        client.set(isolation, "own")
        with meter.running():
            own.release([tag], Release.HAND_BACK)
    client.delete(isolation)
    figures["release_while_isolating_server_us"] = meter.microseconds_per(len(given_back))
    return figures


def _when_all_others_die(client: redis.Redis, own: LeaseStore, others: int) -> dict[str, Any]:
    """All leases of the others have ended: the calls of ``reap`` until none is left."""
    if not others:
        return {}
    meter, leases = Meter(client), keys.QueueKeys(MODEL).leases
    names: Any = client.zrange(leases, 0, -1)
    client.zadd(leases, {tag: LONG_AGO for tag in names if tag.startswith(b"other-")})
    with meter.running():
        reaped = len(own.reap())
    first_us, calls = meter.microseconds_per(1), 1
    rest_us = 0.0
    while reaped < others and rest_us < MOST_REAP_SECONDS * MICROSECONDS:
        with meter.running():
            reaped += len(own.reap())
        rest_us += meter.microseconds_per(1)
        calls += 1
    return {
        "ended_leases": others,
        "reap_first_call_server_ms": round(first_us / 1000, 2),
        "reap_calls": calls,
        "reaped": reaped,
        "reap_server_seconds": round((first_us + rest_us) / MICROSECONDS, 3),
    }
