"""``fleet``: this fleet as its users run it.

A real server, ``fleet worker`` with its supervisor, metrics on, events on and somebody who listens to them. Results are
in the caller's hands when the Python producer has handed them over as :class:`~producer.GenerationResult`.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil
from redis import Redis

from producer import AsyncProducer, FleetError, GenerationRequest, GenerationResult, Producer, Submission, keys
from workers.bench.drivers.base import environment
from workers.bench.drivers.child import Child
from workers.bench.drivers.server import QueueDriver
from workers.bench.engines.base import request_of
from workers.bench.load import BenchJob, Load, due
from workers.bench.records import JobRecord, PassRecord
from workers.bench.target import BenchError, EngineTarget
from workers.local.stack import free_port
from workers.supervisor import ALL_READY

ONE_AT_A_TIME: Final = 1
DRAINED_POLL_SECONDS: Final = 0.1
METRICS_HOST: Final = "127.0.0.1"
LEVELS_THAT_TELL: Final = ("INFO", "DEBUG")


class FleetDriver(QueueDriver):
    """See the module."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        if str(target.settings.get("log.level", "INFO")).upper() not in LEVELS_THAT_TELL:
            raise BenchError(
                f"log.level must be one of {', '.join(LEVELS_THAT_TELL)}: the log says when workers are ready"
            )
        self._metrics_port = free_port(0)
        # SIGQUIT: jobs that still run when a bench is broken off are handed back and not waited for.
        self._supervisor = Child(self._command(), folder / "worker.log", self._environment(), signal.SIGQUIT)

    def _command(self) -> list[str]:
        target = self.target
        settings = {
            "model.name": target.model,
            "model.served_model_name": target.served,
            "engine.kind": target.kind,
            "worker.gpus": target.gpu,
            "metrics.host": METRICS_HOST,
            "metrics.port": self._metrics_port,
            **{f"engine.options.{name}": value for name, value in target.options.items()},
            **target.settings,
        }
        pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
        return [sys.executable, "-m", "workers", *pairs]

    def _environment(self) -> dict[str, str]:
        # The settings of a run are those of its command line alone.
        kept = {name: value for name, value in environment(self.target).items() if not name.startswith("FLEET_")}
        if "worker.gpus" in self.target.settings:
            del kept["CUDA_VISIBLE_DEVICES"]  # which names the one GPU of all other drivers
        return kept | {"FLEET_REDIS_URL": self.server.url}

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        self.start_server(with_listener=True)
        self._supervisor.start()
        self._supervisor.wait_until(self._every_worker_is_ready)

    def _every_worker_is_ready(self) -> bool:
        # Not by the processes that there are: engines of one GPU start one after another.
        return ALL_READY in self._supervisor.log.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """The worker processes: the supervisor has no other children."""
        children = self._supervisor.process.children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        if load.backlog_first:
            return self._from_a_backlog(load)
        if load.window == ONE_AT_A_TIME:
            return self._one_at_a_time(load)
        if any(job.at_seconds > 0 for job in load.jobs):
            return asyncio.run(self._as_they_arrive(load))
        return self._mapped(load)

    def _requests(self, jobs: Sequence[BenchJob]) -> list[GenerationRequest]:
        return [request_of(job, self.target.served) for job in jobs]

    def _mapped(self, load: Load) -> PassRecord:
        records = [JobRecord(job.index, submitted_at=0.0) for job in load.jobs]
        handed_in_at = 0.0

        def requests() -> Iterator[GenerationRequest]:
            nonlocal handed_in_at
            for job, record in zip(load.jobs, records, strict=True):
                record.submitted_at = time.time()
                yield request_of(job, self.target.served)
            handed_in_at = time.time()

        with Producer(self.server.url) as producer:
            for outcome in producer.map(requests(), window=load.window or len(load.jobs), in_order=False):
                record = records[outcome.index]
                record.ended_at = time.time()
                if outcome.result is None:
                    record.failure = str(outcome.failure)
                else:
                    _take_usage(record, outcome.result)
        return PassRecord(records, handed_in_at)

    def _one_at_a_time(self, load: Load) -> PassRecord:
        records, handed_in_at = [], 0.0
        with Producer(self.server.url) as producer:
            for job, request in zip(load.jobs, self._requests(load.jobs), strict=True):
                record = JobRecord(job.index, submitted_at=time.time())
                submission = producer.submit(request)
                handed_in_at = time.time()
                _take_result(record, submission, producer.result(submission))
                records.append(record)
        return PassRecord(records, handed_in_at)

    def _from_a_backlog(self, load: Load) -> PassRecord:
        with Producer(self.server.url) as producer:
            with self.frozen():
                records, submissions = hand_in(producer, load.jobs, self._requests(load.jobs))
                handed_in_at = time.time()  # before the workers go on, who may be done before this is
            self._wait_until_drained()
            collect(producer, records, submissions)
        return PassRecord(records, handed_in_at)

    def _wait_until_drained(self) -> None:
        """Ask a few times a second: whoever waited for results would take its share of the machine."""
        model = self.target.served
        with Redis.from_url(self.server.url) as client:
            while any(client.llen(lane) for lane in keys.all_lanes(model)) or client.zcard(
                keys.QueueKeys(model).leases
            ):
                time.sleep(DRAINED_POLL_SECONDS)

    async def _as_they_arrive(self, load: Load) -> PassRecord:
        at_once, later = due(load.jobs)
        requests = self._requests(later)
        with Producer(self.server.url) as producer:
            records, submissions = hand_in(producer, at_once, self._requests(at_once))
            handed_in_at = time.time()
            async with AsyncProducer(self.server.url) as waiting:
                tasks = []
                for job, request in zip(later, requests, strict=True):
                    await asyncio.sleep(max(0.0, handed_in_at + job.at_seconds - time.time()))
                    tasks.append(asyncio.create_task(_one(waiting, job, request)))
                arrived = await asyncio.gather(*tasks)
            # The flood's results wait until nothing is measured any more.
            collect(producer, records, submissions)
        return PassRecord(sorted([*records, *arrived], key=lambda record: record.index), handed_in_at)

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._supervisor.stop()
        self.stop_server()


def hand_in(
    producer: Producer, jobs: Sequence[BenchJob], requests: Sequence[GenerationRequest]
) -> tuple[list[JobRecord], list[Submission]]:
    """Queue all of them; each counts as handed in before the first is."""
    submitted_at = time.time()
    return [JobRecord(job.index, submitted_at) for job in jobs], submit_all(producer, requests)


def submit_all(producer: Producer, requests: Sequence[GenerationRequest]) -> list[Submission]:
    """Queue all of them in one call."""
    return [outcome.unwrap() for outcome in producer.submit_many(requests)]


def collect(producer: Producer, records: Sequence[JobRecord], submissions: Sequence[Submission]) -> None:
    """Wait for the result of each, in their order; ``ended_at`` is when the worker had it, by the result's timings."""
    for record, submission in zip(records, submissions, strict=True):
        try:
            result = producer.result(submission)
        except FleetError as error:
            record.failure, record.ended_at = str(error), time.time()
            continue
        _take_result(record, submission, result)
        queued_seconds = result.timings.queued_seconds or 0.0
        record.ended_at = submission.enqueued_at + queued_seconds + result.timings.total_seconds


async def _one(producer: AsyncProducer, job: BenchJob, request: GenerationRequest) -> JobRecord:
    record = JobRecord(job.index, submitted_at=time.time())
    try:
        submission = await producer.submit(request)
        _take_result(record, submission, await producer.result(submission))
    except FleetError as error:
        record.failure, record.ended_at = str(error), time.time()
    return record


def _take_usage(record: JobRecord, result: GenerationResult) -> None:
    record.prompt_tokens, record.output_tokens = result.usage.prompt_tokens, result.usage.completion_tokens


def _take_result(record: JobRecord, submission: Submission, result: GenerationResult) -> None:
    record.ended_at = time.time()
    _take_usage(record, result)
    timings = result.timings
    # A job of one token ends with its first. Of a longer one the worker tells what the engine took, so the instants
    # between the worker and its engine are missing.
    within_seconds = timings.total_seconds if record.output_tokens == 1 else timings.first_token_seconds
    if timings.queued_seconds is not None and within_seconds is not None:
        record.first_token_at = submission.enqueued_at + timings.queued_seconds + within_seconds
