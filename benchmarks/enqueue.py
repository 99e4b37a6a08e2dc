"""What it costs to put jobs on Redis and to wait for their results, in CPU time of the producer and of the server.

``python -m benchmarks.enqueue --jobs 20000 --repeats 3``

All sides run in one process beside each other, on an embedded server, with fresh prompts of about 600 bytes:

* ``raw_lpush``: the finished messages, 200 LPUSH in each pipeline: what any producer has to do;
* ``raw_lpush_and_record``: with a job record (HSET, EXPIRE) for each;
* ``submit_many``, from mappings, so with validation; ``submit_many_rich``: with tenant, deadline and idempotency key;
* ``submit_many_heard``: while somebody listens to Celery's events, as Flower does;
* ``submit``: one at a time, with percentiles;
* ``map`` and ``results``: 10,000 jobs that another process answers, so many a second, submitting included;
  ``read_outcome`` is what of it is reading the stored JSON as a validated result.

Prints JSON: per side the medians over the repeats, and the spread of the throughput.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import redis

from producer import GenerationRequest, Priority, Producer, keys
from producer.message import new_job, task_message
from producer.outcome import read_outcome
from tests.waiting import free_port
from workers.bench.figures import CUTS, percentile
from workers.embedded import EmbeddedServer

MODEL = "m"
LANE = keys.lane(MODEL, Priority.NORMAL)
PIPELINE_JOBS = 200
PROMPT = ("The quick brown fox jumps over the lazy dog. " * 14)[:600]
MICROSECONDS = 1e6
WARM_UP_JOBS = 200
SUBMIT_JOBS = 2_000


@dataclass(frozen=True, slots=True)
class Stand:
    """A server, a plain client of it and a producer."""

    server: EmbeddedServer
    client: redis.Redis
    producer: Producer
    jobs: int

    def empty(self) -> None:
        """As it was at the start."""
        self.client.flushdb()
        self.producer.declare_model(MODEL)

    @property
    def server_cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Side = Callable[[Stand], int]
"""Does its work and says for how many jobs."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000, help="of each bulk side and repeat")
    parser.add_argument("--waiting", type=int, default=10_000, help="results that are waited for")
    parser.add_argument("--answers-per-second", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with stand(given.jobs) as here:
        report: dict[str, Any] = {name: measure(here, side, given.repeats) for name, side in SIDES.items()}
        report["submit"] |= latencies(here)
        report |= {
            name: measure(here, waiting_side(way, given.waiting, given.answers_per_second), given.repeats)
            for name, way in WAITING.items()
        }
        report["read_outcome"] = {"producer_cpu_us": reading_cost()}
    report["run"] = vars(given) | {"hardware": f"{platform.machine()}, {os.cpu_count()} cores"}
    print(json.dumps(report).replace("}, ", "},\n "))
    return 0


@contextmanager
def stand(jobs: int) -> Iterator[Stand]:
    """Everything that the sides share."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer(Path(folder), free_port()) as server,
        redis.Redis.from_url(server.url) as client,
        Producer(server.url) as producer,
    ):
        yield Stand(server, client, producer, jobs)


def measure(here: Stand, side: Side, repeats: int) -> dict[str, float]:
    """Medians over the repeats."""
    walls, producers, servers = [], [], []
    for _ in range(repeats):
        here.empty()
        server_before, producer_before, began_at = here.server_cpu_seconds, time.process_time(), time.perf_counter()
        jobs = side(here)
        walls.append(jobs / (time.perf_counter() - began_at))
        producers.append((time.process_time() - producer_before) / jobs * MICROSECONDS)
        servers.append((here.server_cpu_seconds - server_before) / jobs * MICROSECONDS)
    return {
        "jobs_per_second": round(statistics.median(walls)),
        "jobs_per_second_min": round(min(walls)),
        "jobs_per_second_max": round(max(walls)),
        "producer_cpu_us": round(statistics.median(producers), 1),
        "server_cpu_us": round(statistics.median(servers), 1),
    }


def requests(count: int, **fields: object) -> Iterator[dict[str, object]]:
    """Fresh prompts."""
    stamp = time.time_ns()
    for number in range(count):
        yield {
            "model": MODEL,
            "prompt": f"{stamp} {number} {PROMPT}",
            "sampling": {"max_tokens": 64, "temperature": 0.7},
        } | fields


def rich_requests(count: int) -> Iterator[dict[str, object]]:
    """With all that costs more."""
    stamp, deadline = time.time_ns(), datetime.now(UTC) + timedelta(hours=1)
    for number, request in enumerate(requests(count, tenant="acme", deadline=deadline)):
        yield request | {"idempotency_key": f"{stamp}-{number}"}


def raw_push(here: Stand, *, record: bool) -> int:
    """Pipelines of finished messages; the making of them is not counted, the records' fields are the producer's."""
    message = task_message(new_job(GenerationRequest(model=MODEL, prompt=PROMPT))).at(time.time())
    for start in range(0, here.jobs, PIPELINE_JOBS):
        with here.client.pipeline(transaction=False) as pipeline:
            for number in range(start, start + PIPELINE_JOBS):
                pipeline.lpush(LANE, message)
                if record:
                    name = keys.job_record(f"00000000-0000-4000-8000-{number:012}")
                    pipeline.hset(name, mapping={"token": "0" * 32, "model": MODEL, "enqueued_at": "1.5"})
                    pipeline.expire(name, keys.JOB_RECORD_SECONDS)
            pipeline.execute()
    return here.jobs


def submit_many(here: Stand) -> int:
    """The public call, on plain mappings."""
    assert_all_queued(here, here.producer.submit_many(requests(here.jobs)))
    return here.jobs


def submit_many_rich(here: Stand) -> int:
    """The same with tenant, deadline and idempotency key."""
    assert_all_queued(here, here.producer.submit_many(rich_requests(here.jobs)))
    return here.jobs


def submit_many_heard(here: Stand) -> int:
    """The same with a listener, which reads nothing: the server keeps the events for it."""
    with here.client.pubsub() as listening:  # type: ignore[no-untyped-call]  # the library's hints have a gap
        listening.psubscribe("/0.celeryev/*")
        listening.get_message(timeout=1)
        return submit_many(here)


def submit(here: Stand) -> int:
    """One at a time."""
    for request in requests(SUBMIT_JOBS):
        here.producer.submit(**request)
    return SUBMIT_JOBS


def assert_all_queued(here: Stand, outcomes: list[Any]) -> None:
    """What was counted was done."""
    waiting = sum(here.client.llen(lane) for lane in keys.all_lanes(MODEL))
    if not all(outcome.submission for outcome in outcomes) or waiting != here.jobs:
        raise RuntimeError("not every job was queued")


SIDES: dict[str, Side] = {
    "raw_lpush": lambda here: raw_push(here, record=False),
    "raw_lpush_and_record": lambda here: raw_push(here, record=True),
    "submit_many": submit_many,
    "submit_many_rich": submit_many_rich,
    "submit_many_heard": submit_many_heard,
    "submit": submit,
}


def latencies(here: Stand) -> dict[str, float]:
    """Milliseconds of a single submit."""
    here.empty()
    taken = []
    for request in requests(WARM_UP_JOBS + SUBMIT_JOBS):
        began_at = time.perf_counter()
        here.producer.submit(**request)
        taken.append((time.perf_counter() - began_at) * 1000)
    return {f"{name}_ms": round(percentile(taken[WARM_UP_JOBS:], share), 3) for name, share in CUTS.items()}


def through_map(here: Stand, count: int) -> int:
    """Submitting included."""
    return sum(outcome.result is not None for outcome in here.producer.map(requests(count), window=count))


def through_results(here: Stand, count: int) -> int:
    """Submitting included, by ``submit_many``."""
    submissions = [outcome.unwrap() for outcome in here.producer.submit_many(requests(count))]
    return sum(outcome.result is not None for outcome in here.producer.results(submissions))


WAITING = {"map": through_map, "results": through_results}


def waiting_side(way: Callable[[Stand, int], int], count: int, answers_per_second: int) -> Side:
    """A side whose jobs are answered by another process."""

    def run(here: Stand) -> int:
        answering = multiprocessing.get_context("spawn").Process(
            target=answer, args=(here.server.url, count, answers_per_second)
        )
        answering.start()
        answered = way(here, count)
        answering.join()
        if answered != count:
            raise RuntimeError(f"{answered} of {count} were answered")
        return count

    return run


def answer(redis_url: str, count: int, answers_per_second: int) -> None:
    """Take jobs in order and store an answer for each, at most so many a second."""
    began_at, answered = time.perf_counter(), 0
    with redis.Redis.from_url(redis_url) as client:
        while answered < count:
            due = min(500, int((time.perf_counter() - began_at) * answers_per_second) - answered)
            taken = client.rpop(LANE, due) if due > 0 else None
            if not taken:
                began_at = began_at if answered else time.perf_counter()
                time.sleep(0.005)
                continue
            with client.pipeline(transaction=False) as pipeline:
                for message in taken:
                    job_id = orjson.loads(message)["headers"]["id"]
                    pipeline.set(keys.result(job_id), stored_result(job_id))
                pipeline.execute()
            answered += len(taken)


def stored_result(job_id: str) -> bytes:
    """Celery's JSON of an answer of 300 characters."""
    result = {
        "schema_version": 1,
        "id": job_id,
        "model": MODEL,
        "choices": [{"index": 0, "text": PROMPT[:300], "token_count": 64, "finish_reason": "length", "logprobs": None}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 64, "cached_tokens": 0},
        "timings": {"queued_seconds": 0.5, "first_token_seconds": 0.1, "total_seconds": 0.9},
        "worker": "m@host-0",
        "attempt": 1,
        "metadata": {},
    }
    meta = {
        "status": "SUCCESS",
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": "2026-11-23T00:00:00",
    }
    return orjson.dumps(meta | {"task_id": job_id})


def reading_cost(count: int = 10_000) -> float:
    """CPU time to read one stored result, which is the caller's own cost."""
    meta = stored_result("00000000-0000-4000-8000-000000000000")
    began = time.process_time()
    for _ in range(count):
        read_outcome(meta)
    return round((time.process_time() - began) / count * MICROSECONDS, 1)


if __name__ == "__main__":
    sys.exit(main())
