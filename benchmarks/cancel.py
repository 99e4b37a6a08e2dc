"""How long a running job's slot stays taken after ``Producer.cancel``, on an idle fleet.

``python -m benchmarks.cancel --jobs 200``

One endless job at a time on a local fleet with the simulated engine. Measured from before the call: until the call has
returned (its caller's result is stored by then), and until the worker holds nothing any more (the lease is gone, and
with it the slot). Prints p50, p95 and p99.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import redis

from benchmarks.journey import MILLISECONDS, percentiles
from producer import Producer
from producer.jobs import JobState, Submission
from producer.keys import QueueKeys
from workers.local.stack import LocalStack

MODEL = "sim"
TIMEOUT_SECONDS = 10.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    given = parser.parse_args()
    overrides = {"model.name": MODEL, "engine.kind": "simulated", "worker.gpus": "none"}
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder), overrides) as stack:
        stack.wait_until_ready()
        parts = measure(stack.settings.redis.url, given.jobs)
    report = {name: percentiles(values) for name, values in parts.items()}
    print(json.dumps(report | {"jobs": given.jobs, "hardware": f"{platform.machine()}, {os.cpu_count()} cores"}))
    return 0


def measure(redis_url: str, jobs: int) -> dict[str, list[float]]:
    """Milliseconds from the call to each of the two ends, per job."""
    parts: dict[str, list[float]] = {"call": [], "slot_free": []}
    with Producer(redis_url) as producer, redis.Redis.from_url(redis_url) as client:
        for _ in range(jobs):
            job = producer.submit(model=MODEL, prompt="endless", sampling={"max_tokens": 2000, "ignore_eos": True})
            wait_until(partial(is_running, producer, job))
            called_at = time.perf_counter()
            producer.cancel(job)
            parts["call"].append((time.perf_counter() - called_at) * MILLISECONDS)
            wait_until(lambda: client.zcard(QueueKeys(MODEL).leases) == 0)
            parts["slot_free"].append((time.perf_counter() - called_at) * MILLISECONDS)
    return parts


def is_running(producer: Producer, job: Submission) -> bool:
    """Whether the engine has it."""
    return producer.status(job).state is JobState.RUNNING


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again, without a pause: milliseconds count here."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the fleet did not get there")


if __name__ == "__main__":
    sys.exit(main())
