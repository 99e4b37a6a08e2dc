"""The worker of :mod:`workers.bench.drivers.static_batch`: one engine, one batch at a time."""

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from redis import Redis

from workers.bench.drivers.static_batch import JOBS, READY, RESULTS
from workers.bench.engines.base import BareEngine
from workers.bench.engines.choice import bare_engine
from workers.bench.load import BenchJob
from workers.bench.target import EngineTarget


def main() -> int:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    url, target = sys.argv[1], EngineTarget(**json.loads(sys.argv[2]))
    engine = bare_engine(target)
    with asyncio.Runner() as loop, Redis.from_url(url) as client:
        try:
            loop.run(engine.start())
            client.set(READY, 1)
            while True:
                batch = taken(client, target.slots)
                if batch:
                    results = loop.run(answered(engine, batch))
                    client.rpush(RESULTS, *results)
        finally:
            loop.run(engine.close())


def taken(client: Redis, size: int) -> list[bytes | str]:
    """The next batch: at least one job, or none after a second, and as many more as wait, up to ``size``."""
    first = client.blpop([JOBS], timeout=1)
    if first is None:
        return []
    more = client.lpop(JOBS, size - 1) if size > 1 else None
    return [first[1], *(more or [])]


async def answered(engine: BareEngine, batch: list[bytes | str]) -> list[str]:
    """Run all of them; the results, when the last has ended."""
    jobs = [BenchJob(**json.loads(job)) for job in batch]
    return [json.dumps(result) for result in await asyncio.gather(*(_one(engine, job) for job in jobs))]


async def _one(engine: BareEngine, job: BenchJob) -> dict[str, Any]:
    empty = {"first_token_at": None, "prompt_tokens": 0, "output_tokens": 0}
    try:
        generated = await engine.generate(job)
    except Exception as error:  # noqa: BLE001 - a job that fails is a figure of the report
        return {"index": job.index, "failure": f"{type(error).__name__}: {error}"} | empty
    return {"index": job.index, "failure": ""} | asdict(generated)


if __name__ == "__main__":
    sys.exit(main())
