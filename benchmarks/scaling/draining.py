"""How jobs/s and CPU time per job change with the number of worker processes on one server."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import redis

from benchmarks.scaling.jobs import MODEL, submit
from benchmarks.scaling.server import usage
from benchmarks.scaling.stand import Stand, standing
from producer import keys
from producer.contract import Priority

MILLISECONDS = 1000
POLL_SECONDS = 0.05
WARM_UP_JOBS = 500
LOOK_KEYS = 1000
EVENT_CHANNELS = f"/*.{keys.EVENT_EXCHANGE}/*"
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Plan:
    """What is run."""

    workers: Sequence[int]
    jobs_per_worker: int
    output_tokens: int
    repeats: int
    has_listener: bool
    """Whether somebody hears every event, as Flower does."""


def measure(plan: Plan) -> list[dict[str, Any]]:
    """One row per number of workers and repeat."""
    rows = []
    with standing() as stand, listener(stand.url) if plan.has_listener else nullcontext():
        for count in plan.workers:
            stand.fleet.grow_to(count)
            drain(stand, WARM_UP_JOBS * count, plan.output_tokens)
            for repeat in range(1, plan.repeats + 1):
                row = drain(stand, plan.jobs_per_worker * count, plan.output_tokens)
                rows.append({"workers": count, "repeat": repeat, "has_listener": plan.has_listener} | row)
    return rows


@contextmanager
def listener(url: str) -> Iterator[None]:
    """A process that receives every event of Celery's, and does nothing with them."""
    hears = SPAWN.Event()
    process = SPAWN.Process(target=listen, args=(url, hears), daemon=True)
    process.start()
    try:
        hears.wait()
        yield
    finally:
        process.terminate()
        process.join()


def listen(url: str, hears: Event) -> None:
    """Until this process is ended."""
    with redis.Redis.from_url(url) as client, client.pubsub() as events:
        events.psubscribe(EVENT_CHANNELS)
        for message in events.listen():
            if message["type"] == "psubscribe":
                hears.set()


def drain(stand: Stand, jobs: int, output_tokens: int) -> dict[str, Any]:
    """Queue so many jobs while the workers are paused, then let them drain; CPU milliseconds per job."""
    client, fleet = stand.client, stand.fleet
    client.execute_command("FLUSHDB", "SYNC")  # what is freed later would be taken from the memory of what comes now
    stand.producer.declare_model(MODEL)
    with fleet.paused():
        at_first, submit_began_at = usage(client), time.process_time()
        job_ids = submit(stand.producer, "plain", jobs, output_tokens)
        submit_seconds = time.process_time() - submit_began_at
        before, workers_before, began_at = usage(client), fleet.cpu_seconds(), time.monotonic()
    _wait_until_drained(stand)
    seconds = time.monotonic() - began_at
    after, workers_seconds = usage(client), fleet.cpu_seconds() - workers_before
    _check_answers(client, job_ids)
    spent, submitting = after - before, before - at_first
    server_ms = spent.main_thread_seconds * MILLISECONDS / jobs
    enqueue_ms = submitting.main_thread_seconds * MILLISECONDS / jobs
    return {
        "jobs": jobs,
        "output_tokens": output_tokens,
        "jobs_per_second": round(jobs / seconds),
        "worker_cpu_ms_per_job": round(workers_seconds * MILLISECONDS / jobs, 3),
        "producer_cpu_ms_per_job": round(submit_seconds * MILLISECONDS / jobs, 4),
        "server_ms_per_job_enqueue": round(enqueue_ms, 4),
        "server_ms_per_job_drain": round(server_ms, 4),
        "server_all_threads_ms_per_job_drain": round(spent.process_seconds * MILLISECONDS / jobs, 4),
        "server_limit_jobs_per_second": round(MILLISECONDS / (server_ms + enqueue_ms)),
        "queued_bytes_per_job": round(submitting.memory_bytes / jobs),
        "answered_bytes_per_job": round((after - at_first).memory_bytes / jobs),
    }


def _wait_until_drained(stand: Stand) -> None:
    lane, leases = keys.lane(MODEL, Priority.NORMAL), keys.QueueKeys(MODEL).leases
    while stand.client.llen(lane) or stand.client.zcard(leases):
        stand.fleet.check()
        time.sleep(POLL_SECONDS)


def _check_answers(client: redis.Redis, job_ids: Sequence[str]) -> None:
    for start in range(0, len(job_ids), LOOK_KEYS):
        some = job_ids[start : start + LOOK_KEYS]
        stored: Any = client.mget([keys.result(job_id) for job_id in some])
        wrong = sum(b'"SUCCESS"' not in (result or b"")[:64] for result in stored)
        if wrong:
            raise RuntimeError(f"{wrong} of {len(some)} jobs have no good answer")
