"""What callers of one asyncio producer cost while they wait: the producer, and the server."""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import psutil
import redis

from benchmarks.scaling.jobs import MODEL, requests
from benchmarks.scaling.server import Usage as ServerUsage
from benchmarks.scaling.server import own_server, usage
from producer import AsyncProducer, Producer, keys
from producer.contract import Choice, GenerationResult, Timings, Usage
from workers.transport.lease_store import Finish, LeasePolicy, LeaseStore

MILLISECONDS = 1000
SETTLE_SECONDS = 3.0
"""After the last caller began to wait."""
OUTPUT_TOKENS = 272
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Plan:
    """What is run."""

    callers: Sequence[int]
    results_per_second: float
    seconds: float
    """Of the window in which nothing ends, and of the one in which results come."""


@dataclass
class Callers:
    """So many tasks, each of which submits a job, waits for its result, and starts again."""

    producer: AsyncProducer
    results: int = 0

    async def live(self, waiting: asyncio.Semaphore) -> None:
        """Until cancelled."""
        [request] = requests("plain", 1)
        job = await self.producer.submit(request)
        waiting.release()
        while True:
            await self.producer.result(job)
            self.results += 1
            job = await self.producer.submit(request)


@dataclass(frozen=True)
class Moment:
    """All clocks at once."""

    server: ServerUsage
    producer_seconds: float
    results: int
    at: float


def measure(plan: Plan) -> list[dict[str, Any]]:
    """One row per number of callers, each in a process and on a server of its own."""
    rows = []
    for count in plan.callers:
        with own_server() as url:
            with Producer(url) as producer:
                producer.declare_model(MODEL)
            with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
                rows.append(pool.submit(wait_in_this_process, url, count, plan).result())
    return rows


def wait_in_this_process(url: str, count: int, plan: Plan) -> dict[str, Any]:
    """One row."""
    ready, go, stop = SPAWN.Event(), SPAWN.Event(), SPAWN.Event()
    ending = SPAWN.Process(target=end_jobs, args=(url, plan.results_per_second, ready, go, stop))
    ending.start()
    try:
        while not ready.wait(1.0):  # before the windows, which its imports are to be in none of
            if not ending.is_alive():
                message = f"the process that ends the jobs ended itself, with exit code {ending.exitcode}"
                raise RuntimeError(message)
        return asyncio.run(_wait(url, count, plan, go))
    finally:
        stop.set()
        go.set()
        ending.join()


async def _wait(url: str, count: int, plan: Plan, go: Event) -> dict[str, Any]:
    process = psutil.Process()
    with redis.Redis.from_url(url) as client:
        # A caller that fails ends the group, and what stands in it.
        async with AsyncProducer(url) as producer, asyncio.TaskGroup() as group:
            callers, waiting = Callers(producer), asyncio.Semaphore(0)
            resident_before, server_before = process.memory_info().rss, usage(client)
            tasks = [group.create_task(callers.live(waiting)) for _ in range(count)]
            for _ in range(count):
                await waiting.acquire()
            await asyncio.sleep(min(SETTLE_SECONDS, plan.seconds))
            resident = process.memory_info().rss - resident_before
            server_bytes = (usage(client) - server_before).memory_bytes
            quiet = await _window(callers, client, plan.seconds)
            go.set()
            busy = await _window(callers, client, plan.seconds)
            for task in tasks:
                task.cancel()
    return _row(count, quiet, busy) | {
        "producer_bytes_per_caller": round(resident / count),
        "server_bytes_per_caller": round(server_bytes / count),
    }


async def _window(callers: Callers, client: redis.Redis, seconds: float) -> tuple[Moment, Moment]:
    before = _moment(callers, client)
    await asyncio.sleep(seconds)
    return before, _moment(callers, client)


def _moment(callers: Callers, client: redis.Redis) -> Moment:
    return Moment(usage(client), time.process_time(), callers.results, time.monotonic())


def _row(count: int, quiet: tuple[Moment, Moment], busy: tuple[Moment, Moment]) -> dict[str, Any]:
    row: dict[str, Any] = {"callers": count}
    for name, (before, after) in (("quiet", quiet), ("busy", busy)):
        seconds = after.at - before.at
        server_ms = (after.server - before.server).main_thread_seconds * MILLISECONDS
        producer_ms = (after.producer_seconds - before.producer_seconds) * MILLISECONDS
        row[f"{name}_server_ms_per_second"] = round(server_ms / seconds, 2)
        row[f"{name}_producer_ms_per_second"] = round(producer_ms / seconds, 2)
        if results := after.results - before.results:
            row[f"{name}_results_per_second"] = round(results / seconds, 1)
            row[f"{name}_server_ms_per_result"] = round(server_ms / results, 3)
            row[f"{name}_producer_ms_per_result"] = round(producer_ms / results, 3)
    return row


def end_jobs(url: str, results_per_second: float, ready: Event, go: Event, stop: Event) -> None:
    """From ``go`` on, end the job that has waited longest, so many times a second; in a process of its own."""
    policy = LeasePolicy(lease_seconds=3600.0)
    with redis.Redis.from_url(url) as client:
        store = LeaseStore(client, MODEL, policy, consumer="one", worker="one@here")
        ready.set()
        go.wait()
        next_at = time.monotonic()
        while not stop.wait(max(0.0, next_at - time.monotonic())):
            next_at += 1 / results_per_second
            for message in store.claim(1, 0).messages:
                job_id = json.loads(message.raw)["headers"]["id"]
                store.finish([Finish(message.tag, keys.result(job_id), result(job_id), lifetime_seconds=600)])


def result(job_id: str) -> bytes:
    """As Celery stores it."""
    choice = Choice(index=0, text="word " * OUTPUT_TOKENS, token_count=OUTPUT_TOKENS, finish_reason="length")
    answer = GenerationResult(
        id=job_id,
        model=MODEL,
        choices=(choice,),
        usage=Usage(prompt_tokens=OUTPUT_TOKENS, completion_tokens=OUTPUT_TOKENS),
        timings=Timings(total_seconds=1.0),
        worker="one@here",
    )
    return json.dumps({"status": "SUCCESS", "result": answer.model_dump(mode="json"), "task_id": job_id}).encode()
