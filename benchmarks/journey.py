"""Where one request's time goes through an idle fleet, without a model's own time.

``python -m benchmarks.journey --jobs 500``

One job at a time on a local fleet with the simulated engine at zero seconds per token, so what is left is the way:
submit, waiting in Redis for the worker to take it, the worker, and the result's way back. Prints p50, p95 and p99.
``hop`` is from the enqueueing in Redis to the end of the only token: what the queue adds to calling the engine.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from producer import Producer
from workers.bench.figures import CUTS, percentile
from workers.local.stack import LocalStack

MILLISECONDS = 1000
WARM_UP_JOBS = 50


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    given = parser.parse_args()
    overrides = {
        "model.name": "sim",
        "engine.kind": "simulated",
        "engine.options.seconds_per_token": 0,
        "worker.gpus": "none",
    }
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder), overrides) as stack:
        stack.wait_until_ready()
        parts = measure(stack.settings.redis.url, given.jobs)
    report = {name: percentiles(values) for name, values in parts.items()}
    report_text = json.dumps(report | {"jobs": given.jobs, "hardware": f"{platform.machine()}, {os.cpu_count()} cores"})
    print(report_text.replace("}, ", "},\n "))
    return 0


def measure(redis_url: str, jobs: int) -> dict[str, list[float]]:
    """Milliseconds of each part of the way, per job."""
    parts: dict[str, list[float]] = {"submit": [], "in_redis": [], "in_worker": [], "hop": [], "round_trip": []}
    with Producer(redis_url) as producer:
        for number in range(WARM_UP_JOBS + jobs):
            started_at = time.perf_counter()
            job = producer.submit(model="sim", prompt="one", sampling={"max_tokens": 1, "ignore_eos": True})
            submitted_at = time.perf_counter()
            result = producer.result(job, timeout_seconds=10)
            ended_at = time.perf_counter()
            if number >= WARM_UP_JOBS:
                parts["submit"].append((submitted_at - started_at) * MILLISECONDS)
                queued_seconds, worker_seconds = result.timings.queued_seconds or 0.0, result.timings.total_seconds
                parts["in_redis"].append(queued_seconds * MILLISECONDS)
                parts["in_worker"].append(worker_seconds * MILLISECONDS)
                parts["hop"].append((queued_seconds + worker_seconds) * MILLISECONDS)
                parts["round_trip"].append((ended_at - started_at) * MILLISECONDS)
    return parts


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"{name}_ms": round(percentile(values, share), 2) for name, share in CUTS.items()}


if __name__ == "__main__":
    sys.exit(main())
