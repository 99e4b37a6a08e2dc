"""What a worker process costs outside its engine, and how full it keeps the engine's slots.

``python -m benchmarks.worker_cost --jobs 20000``

Cost: a backlog is pushed at once onto an idle worker with the simulated engine at zero seconds per token, 256 slots,
events and results on. What is counted is CPU time by the kernel's clocks, per job and per thread, from the push to the
last result; beside it the server's. The engine's own share is measured alone, on the same jobs, and given as such.

Occupancy: jobs whose running time is drawn uniformly from ±50 % around what the wanted rate needs of 256 slots.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from benchmarks.measured_worker import SLOTS_VARIABLE
from producer import keys
from producer.contract import GenerationRequest, SamplingOptions
from producer.message import new_job, task_message
from workers.bench.figures import percentile
from workers.embedded import EmbeddedServer
from workers.engine.base import EngineConfig, EngineRequest
from workers.engine.simulated import SimulatedEngine
from workers.local.stack import free_port, page_is_ok
from workers.supervisor import OVERRIDES_VARIABLE

MODEL = "sim"
SLOTS = 256
PROMPT_WORDS = 40
WARM_UP_JOBS = 1_000
RATES = (100, 200, 640)
RATE_SECONDS = 12
SETTLED_SHARE = 0.15
"""Of a rate's changes at each end, left out: slots fill first and empty last."""
MILLISECONDS = 1000


@dataclass(frozen=True)
class Stand:
    """A server and one worker process on it."""

    server: EmbeddedServer
    worker: subprocess.Popen[bytes]
    client: redis.Redis


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", type=int, nargs="*", default=list(RATES), help="wanted jobs/s of 256 slots")
    given = parser.parse_args()
    engine_ms = engine_alone_ms([request(number) for number in range(given.jobs)])
    with tempfile.TemporaryDirectory() as folder, stand(Path(folder)) as measured:
        drain(measured, WARM_UP_JOBS)
        runs = [drain(measured, given.jobs) for _ in range(given.repeats)]
    for run in runs:
        run["worker_outside_engine"] = round(run["worker"] - engine_ms, 3)
    report = {
        "cpu_ms_per_job": {"engine_alone": engine_ms, "runs": runs},
        "worker_outside_engine_median": statistics.median(run["worker_outside_engine"] for run in runs),
        "occupancy": {rate: occupancy(rate) for rate in given.rates},
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=1))
    return 0


def request(number: int, seconds: float | None = None) -> GenerationRequest:
    """A job of about 600 bytes, its prompt like no other's; ``seconds`` is how long it holds its slot."""
    words = " ".join(f"word{number}x{place}" for place in range(PROMPT_WORDS))
    metadata = {} if seconds is None else {"simulate": f"slow:{seconds:.4f}"}
    sampling = SamplingOptions(max_tokens=1, ignore_eos=True)
    return GenerationRequest(model=MODEL, prompt=words, sampling=sampling, metadata=metadata)


def engine_alone_ms(requests: list[GenerationRequest]) -> float:
    """CPU milliseconds per job of the simulated engine without a fleet around it."""

    async def run() -> float:
        engine = SimulatedEngine(EngineConfig(MODEL, MODEL, {"seconds_per_token": 0, "max_num_seqs": SLOTS}))
        await engine.start()
        waiting = iter(enumerate(requests))

        async def one_slot() -> None:
            for number, asked in waiting:
                async for _ in engine.generate(EngineRequest(str(number), asked)):
                    pass

        before = time.process_time()
        await asyncio.gather(*(one_slot() for _ in range(SLOTS)))
        spent = time.process_time() - before
        await engine.close()
        return spent

    return round(asyncio.run(run()) * MILLISECONDS / len(requests), 3)


@contextmanager
def stand(folder: Path, slots_file: Path | None = None) -> Iterator[Stand]:
    """A server and a worker that is ready."""
    with EmbeddedServer(folder / "valkey", free_port(0)) as server:
        port = free_port(0)
        settings = {
            "model.name": MODEL,
            "engine.kind": "simulated",
            "engine.options.seconds_per_token": 0,
            "engine.options.max_num_seqs": SLOTS,
            "worker.interactive_reserve": 0,  # on top of the slots that are counted
            "metrics.port": port,
            "log.level": os.environ.get("FLEET_LOG_LEVEL", "INFO"),
        }
        environ = {"FLEET_REDIS_URL": server.url, OVERRIDES_VARIABLE: json.dumps(settings)}
        environ |= {SLOTS_VARIABLE: str(slots_file)} if slots_file else {}
        command = [sys.executable, "-m", "benchmarks.measured_worker"]
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log)  # noqa: S603 - ours
        try:
            while not page_is_ok(f"http://127.0.0.1:{port}/ready"):
                if worker.poll() is not None:
                    raise RuntimeError((folder / "worker.log").read_text())
                time.sleep(0.1)
            with redis.Redis.from_url(server.url) as client:
                yield Stand(server, worker, client)
        finally:
            worker.terminate()
            worker.wait(30)


def push(client: redis.Redis, requests: list[GenerationRequest]) -> None:
    """All of them at one moment."""
    lane, doorbell = keys.lane(MODEL, requests[0].priority), keys.QueueKeys(MODEL).doorbell
    with client.pipeline(transaction=True) as pipe:
        for asked in requests:
            pipe.lpush(lane, task_message(new_job(asked)).at(time.time()))
        pipe.lpush(doorbell, "1")
        pipe.execute()


def wait_until_drained(measured: Stand, requests: list[GenerationRequest]) -> None:
    """Return when nothing waits and nothing is held."""
    lane, leases = keys.lane(MODEL, requests[0].priority), keys.QueueKeys(MODEL).leases
    while measured.client.llen(lane) or measured.client.zcard(leases):
        if measured.worker.poll() is not None:
            raise RuntimeError("the worker ended")
        time.sleep(0.02)


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time of each thread by its name; threads of one kind together."""
    ticks_per_second, by_name = os.sysconf("SC_CLK_TCK"), dict[str, float]()
    for task in Path(f"/proc/{pid}/task").iterdir():
        head, _, rest = (task / "stat").read_text().rpartition(")")
        fields = rest.split()
        name = "hub" if task.name == str(pid) else head.partition("(")[2].partition("-")[0]
        by_name[name] = by_name.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / ticks_per_second
    return by_name


def drain(measured: Stand, jobs: int) -> dict[str, float]:
    """Push so many jobs and wait; CPU milliseconds per job and jobs/s."""
    measured.client.flushdb()
    requests = [request(number) for number in range(jobs)]
    pid, server = measured.worker.pid, psutil.Process(measured.server.pid)
    push(measured.client, requests[:1])  # the scripts are loaded again
    wait_until_drained(measured, requests)
    before, server_before, started_at = thread_seconds(pid), server.cpu_times(), time.monotonic()
    push(measured.client, requests)
    wait_until_drained(measured, requests)
    seconds, after, server_after = time.monotonic() - started_at, thread_seconds(pid), server.cpu_times()
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    server_spent = sum(server_after[:2]) - sum(server_before[:2])
    rows = {"worker": sum(spent.values())} | spent | {"server": server_spent}
    return costs(rows, jobs) | {"jobs_per_second": round(jobs / seconds)}


def costs(seconds: dict[str, float], jobs: int) -> dict[str, float]:
    """CPU milliseconds per job, of what has some."""
    return {name: round(value * MILLISECONDS / jobs, 3) for name, value in seconds.items() if value >= jobs * 1e-6}


def occupancy(rate: int) -> dict[str, float]:
    """How full the slots were, and how long a freed one stayed empty, at this rate of finished jobs."""
    mean_seconds, jobs = SLOTS / rate, rate * RATE_SECONDS
    draw = random.Random(rate)  # noqa: S311 - no secret
    requests = [request(number, draw.uniform(0.5, 1.5) * mean_seconds) for number in range(jobs)]
    with tempfile.TemporaryDirectory() as name:
        slots_file = Path(name) / "slots"
        with stand(Path(name), slots_file) as measured:
            push(measured.client, requests)
            before, started_at = thread_seconds(measured.worker.pid), time.monotonic()
            wait_until_drained(measured, requests)
            seconds, after = time.monotonic() - started_at, thread_seconds(measured.worker.pid)
        changes = [(at, step) for at, step in map(json.loads, slots_file.read_text().splitlines())]
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    rows = costs({"worker": sum(spent.values())} | spent, jobs)
    rows["worker_outside_engine"] = round(rows["worker"] - engine_alone_ms(requests), 3)
    return occupancy_of(changes) | rows | {"jobs_per_second": round(jobs / seconds, 1)}


def occupancy_of(changes: list[tuple[float, int]]) -> dict[str, float]:
    """Share of the slots in use, and how long freed slots stayed empty, first in first out."""
    settled = range(int(len(changes) * SETTLED_SHARE), int(len(changes) * (1 - SETTLED_SHARE)))
    running, busy_seconds, gaps, freed = 0, 0.0, list[float](), deque[float]()
    for place, ((at, step), (following, _)) in enumerate(itertools.pairwise(changes)):
        running += step
        if place in settled:
            busy_seconds += running * (following - at)
        if step < 0:
            freed.append(at)
        elif freed:
            gap = at - freed.popleft()
            if place in settled:
                gaps.append(gap)
    whole_seconds = changes[settled.stop][0] - changes[settled.start][0]
    return {
        "occupancy_percent": round(100 * busy_seconds / whole_seconds / SLOTS, 2),
        "refill_p50_ms": round(percentile(gaps, 0.5) * MILLISECONDS, 2),
        "refill_p99_ms": round(percentile(gaps, 0.99) * MILLISECONDS, 2),
        "refill_max_ms": round(max(gaps) * MILLISECONDS, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
