"""The worker's own series, in a registry of each test's own."""

import time
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from prometheus_client import CollectorRegistry, Gauge

from workers.observe.http import metrics_page
from workers.observe.metrics import WorkerMetrics
from workers.observe.records import BatchDrained, JobFinished

MODEL = {"model": "m"}


@pytest.fixture
def registry() -> CollectorRegistry:
    """Empty."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> WorkerMetrics:
    """An observer for model ``m``."""
    return WorkerMetrics("m", registry)


def test_an_answered_job_is_counted_with_its_times_and_tokens(
    metrics: WorkerMetrics, registry: CollectorRegistry
) -> None:
    """One observation in each series."""
    metrics.job_finished(
        JobFinished(
            "j", "succeeded", 2.0, queued_seconds=0.5, first_token_seconds=0.25, prompt_tokens=7, completion_tokens=9
        )
    )
    samples = {
        "fleet_request_duration_seconds_sum": 2.0,
        "fleet_queue_wait_seconds_sum": 0.5,
        "fleet_time_to_first_token_seconds_sum": 0.25,
        "fleet_decode_seconds_sum": 1.75,
        "fleet_job_duration_seconds_sum": 2.5,
        "fleet_prompt_tokens_total": 7,
        "fleet_generation_tokens_total": 9,
    }
    assert {name: registry.get_sample_value(name, MODEL) for name in samples} == samples
    assert registry.get_sample_value("fleet_requests_total", MODEL | {"status": "succeeded"}) == 1


@pytest.mark.parametrize("status", ["engine_failed", "cancelled", "given_back", "time_limit_exceeded"])
def test_each_way_to_end_has_a_status(metrics: WorkerMetrics, registry: CollectorRegistry, status: str) -> None:
    """Two jobs, two counts; no tokens."""
    for job_id in ("a", "b"):
        metrics.job_finished(JobFinished(job_id, status, 1.0))
    assert registry.get_sample_value("fleet_requests_total", MODEL | {"status": status}) == 2
    assert registry.get_sample_value("fleet_generation_tokens_total", MODEL) == 0


def test_what_is_not_known_is_not_observed(metrics: WorkerMetrics, registry: CollectorRegistry) -> None:
    """A job of a stock Celery sender has no queue time: 0 would be a lie."""
    metrics.job_finished(JobFinished("j", "succeeded", 1.0))
    assert registry.get_sample_value("fleet_queue_wait_seconds_count", MODEL) == 0
    assert registry.get_sample_value("fleet_time_to_first_token_seconds_count", MODEL) == 0
    assert registry.get_sample_value("fleet_decode_seconds_count", MODEL) == 0
    assert registry.get_sample_value("fleet_job_duration_seconds_count", MODEL) == 0


def test_every_status_counts_from_nothing(metrics: WorkerMetrics, registry: CollectorRegistry) -> None:
    """The first failure would otherwise be a series that begins with 1, in which Prometheus sees no increase."""
    assert registry.get_sample_value("fleet_requests_total", MODEL | {"status": "poisoned"}) == 0
    assert registry.get_sample_value("fleet_requests_total", MODEL | {"status": "given_back"}) == 0
    metrics.job_finished(JobFinished("j", "poisoned", 1.0))
    assert registry.get_sample_value("fleet_requests_total", MODEL | {"status": "poisoned"}) == 1


def test_a_worker_tells_when_it_started(metrics: WorkerMetrics, registry: CollectorRegistry) -> None:
    """By which Prometheus counts restarts."""
    assert metrics is not None
    assert registry.get_sample_value("fleet_worker_start_time_seconds", MODEL) == pytest.approx(time.time(), abs=60)


def test_drains_are_counted_by_size(metrics: WorkerMetrics, registry: CollectorRegistry) -> None:
    """Cumulative buckets, as Prometheus has them."""
    for count in (1, 8, 64):
        metrics.batch_drained(BatchDrained(count))
    at_most = {
        le: registry.get_sample_value("fleet_drain_size_jobs_bucket", MODEL | {"le": le}) for le in ("1.0", "8.0")
    }
    assert at_most == {"1.0": 1, "8.0": 2}
    assert registry.get_sample_value("fleet_drain_size_jobs_sum", MODEL) == 73


def test_gauges_show_the_present(metrics: WorkerMetrics, registry: CollectorRegistry) -> None:
    """The last value counts."""
    metrics.active_jobs(5)
    metrics.active_jobs(3)
    assert registry.get_sample_value("fleet_active_jobs", MODEL) == 3
    for is_up in (True, False):
        metrics.engine_up(is_up=is_up)
        assert registry.get_sample_value("fleet_engine_up", MODEL) == int(is_up)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "",
    ],
)
def test_every_prometheus_gets_vllms_series_by_their_names(registry: CollectorRegistry, accept: str) -> None:
    """Version 2, version 3, and a person with curl."""
    Gauge("vllm:num_requests_running", "Running.", registry=registry).set(3)
    environ: dict[str, Any] = {"HTTP_ACCEPT": accept}
    setup_testing_defaults(environ)
    page = b"".join(metrics_page(registry)(environ, lambda _status, _headers: None))
    assert b"\nvllm:num_requests_running 3.0\n" in page
