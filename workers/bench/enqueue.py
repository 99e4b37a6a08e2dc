"""``enqueue``: what it costs to queue jobs and to wait for their results, in one producer process.

Measured in the process of this command, on a server of its own; CPU milliseconds are this process' and the server's.
The first three parts have no worker: jobs go to a declared model that nobody serves.

* *bulk*: all jobs in one call of ``Producer.submit_many``.
* *raw LPUSH*: the very messages that the bulk call queued, pushed onto a list in pipelines of 500.
* *single submit*: ``Producer.submit``, one call after the other.
* *waiting callers*: that many ``AsyncProducer.result`` calls wait in one event loop while a worker with the simulated
  engine answers their jobs; from the first wait to the last result. Submitting is not in it.
* *results*: ``Producer.results`` over as many jobs, queued before as well.
* *map*: ``Producer.map`` over all jobs with that worker, submitting included.
"""

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from redis import Redis

from producer import AsyncProducer, GenerationRequest, Producer, Submission, keys
from producer.contract import Priority
from workers.bench.drivers.fleet import FleetDriver, submit_all
from workers.bench.drivers.server import server_cpu_seconds
from workers.bench.engines.base import request_of
from workers.bench.figures import MILLISECONDS, Metrics, distribution, spread
from workers.bench.overhead import PATIENCE
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.session import Session
from workers.bench.target import BenchError
from workers.embedded import EmbeddedServer
from workers.local.stack import free_port

MODEL: Final = "bench-enqueue"
PIPELINE_JOBS: Final = 500
COLUMNS: Final = (
    Column("jobs_per_second", "jobs/s", 0),
    Column("producer_cpu_ms_per_job", "producer cpu-ms/job", 4),
    Column("server_cpu_ms_per_job", "server cpu-ms/job", 4),
    Column("call_ms_p50", "call p50 ms", 3),
    Column("call_ms_p95", "p95 ms", 3),
    Column("call_ms_p99", "p99 ms", 3),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each."""

    jobs: int
    single_submits: int
    callers: int


@dataclass(slots=True)
class Cost:
    """What a stretch of work cost; filled when it has ended."""

    seconds: float = 0.0
    producer_cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0

    def per_job(self, jobs: int) -> Metrics:
        """The figures of a row."""
        return {
            "jobs": jobs,
            "jobs_per_second": jobs / self.seconds,
            "producer_cpu_ms_per_job": self.producer_cpu_seconds * MILLISECONDS / jobs,
            "server_cpu_ms_per_job": self.server_cpu_seconds * MILLISECONDS / jobs,
        }


@contextmanager
def measured(server: EmbeddedServer) -> Iterator[Cost]:
    """Measure what is done inside."""
    cost = Cost()
    server_before, cpu_before, began_at = server_cpu_seconds(server.url), time.process_time(), time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - began_at
    cost.producer_cpu_seconds = time.process_time() - cpu_before
    cost.server_cpu_seconds = server_cpu_seconds(server.url) - server_before


def run(session: Session, plan: Plan) -> Report:
    """Run every part, all of them in each repeat.

    Raises:
        BenchError: the target is not the simulated engine, or a worker did not start.
    """
    if session.target.kind != "simulated":
        raise BenchError("enqueue measures the producer, not an engine: add --engine simulated")
    raw, bulk, single = Row("raw LPUSH"), Row("bulk"), Row("single submit")
    ways = {f"{plan.callers:,} callers": _waited_for, "results": _taken_together, "map": _mapped}
    waiting = {name: Row(name) for name in ways}
    rows = [raw, bulk, single, *waiting.values()]
    report = Report("enqueue", session.target, dataclasses.asdict(plan), COLUMNS, rows)
    with EmbeddedServer(session.folder / "enqueue", free_port(0)) as server:
        for number in session.passes:
            session.say(f"queueing: repeat {number} of {session.repeats}")
            requests = _requests(session, number, plan.jobs, MODEL)
            queued, messages = _in_bulk(server, requests)
            bulk.repeats.append(queued)
            raw.repeats.append(_pushed(server, messages))
            single.repeats.append(_one_by_one(server, requests[: plan.single_submits]))
    with _running(session) as fleet:
        for number in session.passes:
            session.say(f"waiting: repeat {number} of {session.repeats}")
            requests = _requests(session, number, plan.callers, fleet.target.served)
            for name, way in ways.items():
                waiting[name].repeats.append(way(fleet, requests))
    pairs = zip(bulk.repeats, raw.repeats, strict=True)
    shares = [b.metrics["jobs_per_second"] / r.metrics["jobs_per_second"] for b, r in pairs]
    report.comparisons = {"bulk ÷ raw LPUSH, jobs/s": spread(shares)}
    return report


def _requests(session: Session, number: int, count: int, model: str) -> list[GenerationRequest]:
    return [request_of(job, model) for job in session.mix.jobs(number, count)]


@contextmanager
def _emptied(server: EmbeddedServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def _pushed(server: EmbeddedServer, messages: Sequence[bytes | str]) -> Repeat:
    with _emptied(server) as client, measured(server) as cost:
        for at in range(0, len(messages), PIPELINE_JOBS):
            pipeline = client.pipeline(transaction=False)
            for message in messages[at : at + PIPELINE_JOBS]:
                pipeline.lpush("raw", message)
            pipeline.execute()
    sizes = {"message_bytes_mean": sum(map(len, messages)) / len(messages)}
    return Repeat(cost.per_job(len(messages)) | sizes)


def _in_bulk(server: EmbeddedServer, requests: Sequence[GenerationRequest]) -> tuple[Repeat, list[bytes | str]]:
    """What it took, and the messages that are in the queue now."""
    with _emptied(server) as client, Producer(server.url) as producer:
        producer.declare_model(MODEL)
        with measured(server) as cost:
            submit_all(producer, requests)
        queued = sum(client.llen(lane) for lane in keys.all_lanes(MODEL))
        messages = client.lrange(keys.lane(MODEL, Priority.NORMAL), 0, -1)
    if queued != len(requests):
        raise BenchError(f"{queued} of {len(requests)} jobs were queued")
    if len(messages) != queued:
        # Other messages wait elsewhere, in another form, and cost more: those of long prompts that may begin alike.
        raise BenchError("only jobs in plain lanes compare with raw pushes: make --prompt-words shorter")
    return Repeat(cost.per_job(len(requests))), messages


def _one_by_one(server: EmbeddedServer, requests: Sequence[GenerationRequest]) -> Repeat:
    calls_ms = []
    with _emptied(server), Producer(server.url) as producer:
        producer.declare_model(MODEL)
        with measured(server) as cost:
            for request in requests:
                began_at = time.perf_counter()
                producer.submit(request)
                calls_ms.append((time.perf_counter() - began_at) * MILLISECONDS)
    return Repeat(cost.per_job(len(requests)) | distribution("call_ms", calls_ms), {"call_ms": calls_ms})


@contextmanager
def _running(session: Session) -> Iterator[FleetDriver]:
    options = session.target.options | {"seconds_per_token": 0}
    settings = PATIENCE | session.target.settings
    fleet = FleetDriver(dataclasses.replace(session.target, options=options, settings=settings), session.folder / "f")
    fleet.folder.mkdir()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def _waited_for(fleet: FleetDriver, requests: Sequence[GenerationRequest]) -> Repeat:
    with fleet.frozen(), Producer(fleet.server.url) as producer:
        submissions = submit_all(producer, requests)
    with measured(fleet.server) as cost:
        asyncio.run(_all_results(fleet.server.url, submissions))
    return Repeat(cost.per_job(len(requests)))


async def _all_results(url: str, submissions: Sequence[Submission]) -> None:
    async with AsyncProducer(url) as producer:
        await asyncio.gather(*(producer.result(submission) for submission in submissions))


def _taken_together(fleet: FleetDriver, requests: Sequence[GenerationRequest]) -> Repeat:
    with Producer(fleet.server.url) as producer:
        with fleet.frozen():
            submissions = submit_all(producer, requests)
        with measured(fleet.server) as cost:
            for outcome in producer.results(submissions):
                outcome.unwrap()
    return Repeat(cost.per_job(len(requests)))


def _mapped(fleet: FleetDriver, requests: Sequence[GenerationRequest]) -> Repeat:
    with Producer(fleet.server.url) as producer, measured(fleet.server) as cost:
        for outcome in producer.map(requests, window=len(requests), in_order=False):
            outcome.unwrap()
    return Repeat(cost.per_job(len(requests)))
