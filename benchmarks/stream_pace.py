"""How far apart a streamed answer's pieces are in Redis while the engine speaks faster than they are written.

``python -m benchmarks.stream_pace --streams 1 32``

So many streamed jobs run at once on a local fleet with the simulated engine, a token each 2 ms. Read are the moments at
which the entries of their streams were added, by the server's clock (an entry's id begins with it); printed p50, p95,
p99 and the longest in milliseconds.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import cast

import redis

from producer import Producer, keys
from workers.bench.figures import CUTS, percentile
from workers.local.stack import LocalStack

TOKENS = 500
WAIT_SECONDS = 300


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32], help="at once")
    given = parser.parse_args()
    overrides = {
        "model.name": "sim",
        "engine.kind": "simulated",
        "engine.options.seconds_per_token": 0.002,
        "worker.gpus": "none",
    }
    print(json.dumps({"hardware": f"{platform.machine()}, {os.cpu_count()} cores", "tokens": TOKENS}))
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder), overrides) as stack:
        stack.wait_until_ready()
        for streams in (1, *given.streams):  # the first warms up
            apart = measure(stack.settings.redis.url, streams)
            found = {name: round(percentile(apart, share), 1) for name, share in CUTS.items()}
            found |= {"longest": max(apart), "entries": len(apart)}
            print(json.dumps({"streams": streams, "apart_ms": found}), flush=True)
    return 0


def measure(redis_url: str, streams: int) -> list[int]:
    """Milliseconds from each entry to the next, of all streams."""
    sampling = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    with Producer(redis_url) as producer, redis.Redis.from_url(redis_url) as server:
        jobs = [
            producer.submit(model="sim", prompt=f"{number}", sampling=sampling, stream=True, priority="interactive")
            for number in range(streams)
        ]
        for job in jobs:
            producer.result(job, timeout_seconds=WAIT_SECONDS)
        apart = []
        for job in jobs:
            entries = cast("list[tuple[bytes, object]]", server.xrange(keys.stream(job.job_id)))
            added_at_ms = [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]
            apart += [after - before for before, after in itertools.pairwise(added_at_ms)]
    return apart


if __name__ == "__main__":
    sys.exit(main())
