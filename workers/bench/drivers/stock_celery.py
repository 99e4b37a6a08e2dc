"""The side of a stock Celery app that sends tasks and waits for results; who runs the tasks is the driver's matter."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Final

from celery import Celery
from celery.result import AsyncResult, ResultSet

from workers.bench.engines.base import Generated
from workers.bench.load import BenchJob, Load, due
from workers.bench.records import JobRecord, PassRecord

TASK: Final = "bench.generate"
QUEUE: Final = "bench"
PRIORITIES: Final = {"interactive": 0, "normal": 3, "batch": 6, "background": 9}
"""Redis' way: 0 is the most urgent."""
CONF: Final[dict[str, Any]] = {
    "broker_transport_options": {"queue_order_strategy": "priority"},
    "result_backend_always_retry": True,
    "task_acks_late": True,
    "task_send_sent_event": True,
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": True,
    # EngineCore dies of Celery's stand-in for stdout, which has no fileno.
    "worker_redirect_stdouts": False,
}
"""Late acknowledgement, prefetch 1 and events: what Celery's documentation says to those who must not lose a task."""
ONE_AT_A_TIME: Final = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """A task that was sent."""

    record: JobRecord
    result: AsyncResult


class StockProducer:
    """Sends :data:`TASK` with the job as its only argument."""

    def __init__(self, redis_url: str, queue: str = QUEUE) -> None:
        self._queue = queue
        self._app = Celery("bench", broker=redis_url, backend=redis_url, set_as_current=False)
        self._app.conf.update(CONF)

    def run(self, load: Load) -> PassRecord:
        """Run one pass. A result is in the caller's hands when Celery's own iteration over the set yields it."""
        if load.window == ONE_AT_A_TIME:
            records = [self._gathered([self._sent(job)])[0] for job in load.jobs]
            return PassRecord(records, records[-1].submitted_at)
        at_once, later = due(load.jobs)
        sent = [self._sent(job) for job in at_once]
        handed_in_at = time.time()
        for job in later:
            time.sleep(max(0.0, handed_in_at + job.at_seconds - time.time()))
            sent.append(self._sent(job))
        # Nobody waits while later ones arrive, so there the worker says when each ended.
        records = self._gathered(sent, is_worker_clock=bool(later))
        return PassRecord(sorted(records, key=lambda record: record.index), handed_in_at)

    def run_from_a_backlog(self, load: Load, frozen: AbstractContextManager[None]) -> PassRecord:
        """Run one pass whose jobs are all sent inside ``frozen``; the worker says when each ended."""
        with frozen:
            sent = [self._sent(job) for job in load.jobs]
            handed_in_at = time.time()  # before the workers go on, who may be done before this is
        return PassRecord(self._gathered(sent, is_worker_clock=True), handed_in_at)

    def _sent(self, job: BenchJob) -> Sent:
        record = JobRecord(job.index, submitted_at=time.time())
        priority = PRIORITIES[job.priority]
        return Sent(record, self._app.send_task(TASK, args=[asdict(job)], queue=self._queue, priority=priority))

    def _gathered(self, sent: Sequence[Sent], *, is_worker_clock: bool = False) -> list[JobRecord]:
        records = {one.result.id: one.record for one in sent}
        results = ResultSet([one.result for one in sent], app=self._app)
        for job_id, meta in results.iter_native():
            _take(records[job_id], meta, is_worker_clock=is_worker_clock)
        for one in sent:
            one.result.forget()
        return list(records.values())

    def close(self) -> None:
        """Close its connections."""
        self._app.close()


def answer_of(generated: Generated) -> dict[str, Any]:
    """What the task returns."""
    return asdict(generated) | {"ended_at": time.time()}


def _take(record: JobRecord, meta: dict[str, Any], *, is_worker_clock: bool) -> None:
    record.ended_at = time.time()
    if meta["status"] != "SUCCESS":
        record.failure = f"{meta['status']}: {meta['result']}"
        return
    answer = meta["result"]
    record.first_token_at = answer["first_token_at"]
    record.prompt_tokens, record.output_tokens = answer["prompt_tokens"], answer["output_tokens"]
    if is_worker_clock:
        record.ended_at = answer["ended_at"]
