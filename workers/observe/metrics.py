"""Prometheus metrics of one worker process; vLLM's own ``vllm:*`` series live in the same registry.

Every series carries the label ``model``. Times are in seconds, sizes in bytes, as Prometheus asks.
"""

import time
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from producer.contract import FailureCode
from workers.observe.activity import Activity
from workers.observe.records import BatchDrained, JobFinished

DURATION_BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600)
QUEUE_WAIT_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43_200)
FIRST_TOKEN_BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
JOB_BUCKETS_SECONDS: Final = (0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1800, 7200, 43_200)
DRAIN_BUCKETS_JOBS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STATUSES: Final = ("succeeded", "put_off", "given_back", "time_limit_exceeded", *(code.value for code in FailureCode))
"""They start at 0: Prometheus takes a series that begins with 1 for one that was always 1, and misses the first job."""


class WorkerMetrics:
    """The observer behind ``/metrics``."""

    def __init__(self, model: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._model, self._registry = model, registry
        self.activity = Activity()
        self._requests = Counter(
            "fleet_requests", "Jobs with an outcome, by status.", ("model", "status"), registry=registry
        )
        for status in STATUSES:
            self._requests.labels(model, status)
        self._duration = self._histogram(
            "fleet_request_duration_seconds", "From the worker taking a job to its outcome.", DURATION_BUCKETS_SECONDS
        )
        self._queue_wait = self._histogram(
            "fleet_queue_wait_seconds", "From enqueue to the worker taking the job.", QUEUE_WAIT_BUCKETS_SECONDS
        )
        self._first_token = self._histogram(
            "fleet_time_to_first_token_seconds",
            "From the engine taking a job to its first token.",
            FIRST_TOKEN_BUCKETS_SECONDS,
        )
        self._decode = self._histogram(
            "fleet_decode_seconds", "From the first token to the outcome.", DURATION_BUCKETS_SECONDS
        )
        self._job = self._histogram("fleet_job_duration_seconds", "From enqueue to the outcome.", JOB_BUCKETS_SECONDS)
        self._drain = self._histogram(
            "fleet_drain_size_jobs", "Jobs that entered the engine in one micro-batch.", DRAIN_BUCKETS_JOBS
        )
        self._prompt_tokens = self._counter("fleet_prompt_tokens", "Prompt tokens of answered jobs.")
        self._completion_tokens = self._counter("fleet_generation_tokens", "Generated tokens of answered jobs.")
        self._reaped = self._counter("fleet_leases_reaped", "Expired leases that this worker handed back.")
        self._active = self._gauge("fleet_active_jobs", "Jobs in the pool now.")
        self._engine_up = self._gauge("fleet_engine_up", "1 while the engine is loaded and healthy.")
        self._gauge("fleet_worker_start_time_seconds", "When this process started.").set(time.time())

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model",), buckets=buckets, registry=self._registry).labels(self._model)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model",), registry=self._registry).labels(self._model)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("model",), registry=self._registry).labels(self._model)

    def batch_drained(self, record: BatchDrained) -> None:
        """A micro-batch entered the engine."""
        self._drain.observe(record.job_count)

    def job_finished(self, record: JobFinished) -> None:
        """A job has its outcome."""
        self.activity.job_finished(record)
        self._requests.labels(self._model, record.status).inc()
        self._duration.observe(record.running_seconds)
        if record.queued_seconds is not None:
            self._queue_wait.observe(record.queued_seconds)
            self._job.observe(record.queued_seconds + record.running_seconds)
        if record.first_token_seconds is not None:
            self._first_token.observe(record.first_token_seconds)
            self._decode.observe(max(0.0, record.running_seconds - record.first_token_seconds))
        self._prompt_tokens.inc(record.prompt_tokens)
        self._completion_tokens.inc(record.completion_tokens)

    def leases_reaped(self, count: int) -> None:
        """So many jobs of dead workers are back in the queue."""
        self._reaped.inc(count)

    def active_jobs(self, count: int) -> None:
        """This many jobs are in the pool now."""
        self.activity.running_jobs = count
        self._active.set(count)

    def engine_up(self, *, is_up: bool) -> None:
        """Whether the engine is loaded and healthy."""
        self._engine_up.set(1 if is_up else 0)
