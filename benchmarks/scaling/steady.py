"""What a job costs while engines are as slow as real ones: slots free one by one, so claims and results are small."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.scaling.fleet import SLOTS, Fleet
from benchmarks.scaling.jobs import MODEL, slow_requests
from benchmarks.scaling.server import usage
from benchmarks.scaling.stand import standing
from producer import Producer, keys
from producer.contract import Priority

MILLISECONDS = 1000
SETTLE_SHARE = 2.0
"""Of a job's mean time: by then the first jobs, which all began together, have ended."""
SPARE = 1.3
"""Jobs queued, over those that should be taken."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Plan:
    """What is run."""

    workers: Sequence[int]
    jobs_per_second: float
    """Of each worker, all of its slots taken."""
    output_tokens: int
    seconds: float


def measure(plan: Plan) -> list[dict[str, Any]]:
    """One row per number of workers."""
    rows = []
    with standing() as stand:
        for count in plan.workers:
            stand.fleet.grow_to(count)
            with stand.fleet.paused():
                _queue(stand.producer, plan, count)
            time.sleep(SETTLE_SHARE * SLOTS / plan.jobs_per_second)
            rows.append({"workers": count} | _window(stand.fleet, stand.client, plan.seconds))
            _end(stand.client)
    return rows


def _queue(producer: Producer, plan: Plan, workers: int) -> None:
    mean_seconds = SLOTS / plan.jobs_per_second
    whole_seconds = SETTLE_SHARE * mean_seconds + plan.seconds
    jobs = int((SLOTS + whole_seconds * plan.jobs_per_second) * workers * SPARE)
    for outcome in producer.submit_many(slow_requests(jobs, mean_seconds, plan.output_tokens)):
        outcome.unwrap()


def _window(fleet: Fleet, client: redis.Redis, seconds: float) -> dict[str, Any]:
    before, workers_before = usage(client), fleet.cpu_seconds()
    claims_before, commands_before = _claims(client), _commands(client)
    began_at = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began_at
    spent, workers_seconds = usage(client) - before, fleet.cpu_seconds() - workers_before
    jobs, commands = _claims(client) - claims_before, _commands(client)
    if not jobs:
        raise RuntimeError(f"no job was taken in {passed:.0f} s")
    per_job = {
        name: (round((calls - calls_before) / jobs, 2), round((microseconds - microseconds_before) / jobs, 1))
        for name, (calls, microseconds) in commands.items()
        for calls_before, microseconds_before in [commands_before.get(name, (0, 0))]
    }
    fleet.check()
    if not client.llen(keys.lane(MODEL, Priority.NORMAL)):
        raise RuntimeError("the queue ran empty: the workers were faster than asked for")
    return {
        "jobs_per_second": round(jobs / passed, 1),
        "leases_held": client.zcard(keys.QueueKeys(MODEL).leases),
        "server_ms_per_job": round(spent.main_thread_seconds * MILLISECONDS / jobs, 3),
        "server_all_threads_ms_per_job": round(spent.process_seconds * MILLISECONDS / jobs, 3),
        "server_ms_per_second": round(spent.main_thread_seconds * MILLISECONDS / passed, 1),
        "worker_cpu_ms_per_job": round(workers_seconds * MILLISECONDS / jobs, 3),
        "script_calls_per_job": per_job["evalsha"][0],
        "calls_and_us_per_job": dict(sorted(per_job.items(), key=lambda item: -item[1][1])),
    }


def _claims(client: redis.Redis) -> int:
    """Jobs taken until now; while all slots are full, one is taken for each that ends."""
    return int(client.get(keys.QueueKeys(MODEL).claim_counter) or 0)


def _commands(client: redis.Redis) -> dict[str, tuple[int, int]]:
    """Calls and microseconds of each command, by the server's clock; those inside scripts count twice."""
    stats: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): (row["calls"], row["usec"]) for name, row in stats.items()}


def _end(client: redis.Redis) -> None:
    """What waits is forgotten, and what runs ends."""
    client.delete(keys.lane(MODEL, Priority.NORMAL))
    while client.zcard(keys.QueueKeys(MODEL).leases):
        time.sleep(POLL_SECONDS)
