"""What operators see: metrics, health, readiness, and Flower."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import Producer
from tests.flowers import RunningFlower, running_flower
from tests.running import RunningFleet, simulated
from tests.waiting import eventually


def test_the_metrics_page_tells_what_happened(fleet: RunningFleet, producer: Producer) -> None:
    """Every series that operators were promised moves with the jobs."""
    before = fleet.metric("fleet_requests_total", status="succeeded")
    tokens_before = fleet.metric("fleet_generation_tokens_total")
    jobs = [
        producer.submit(model=fleet.served, prompt=f"job {n}", sampling={"max_tokens": 5, "ignore_eos": True})
        for n in range(20)
    ]
    for job in jobs:
        producer.result(job, timeout_seconds=60)
    eventually(lambda: fleet.metric("fleet_requests_total", status="succeeded") == before + 20, what="20 counted")
    assert fleet.metric("fleet_generation_tokens_total") == tokens_before + 100
    assert fleet.metric("fleet_engine_up", model=fleet.served) == 1
    for series in (
        "fleet_request_duration_seconds_count",
        "fleet_queue_wait_seconds_count",
        "fleet_time_to_first_token_seconds_count",
        "fleet_drain_size_jobs_count",
        "fleet_prompt_tokens_total",
    ):
        assert fleet.metric(series, model=fleet.served) > 0, series


@pytest.mark.vllm
def test_vllms_own_series_are_on_the_same_page(vllm_fleet: RunningFleet) -> None:
    """vllm:* beside fleet_*."""
    with vllm_fleet.producer() as producer:
        job = producer.submit(
            model=vllm_fleet.served, prompt="count me", sampling={"max_tokens": 3, "ignore_eos": True}
        )
        producer.result(job, timeout_seconds=60)
    eventually(lambda: vllm_fleet.metric("vllm:generation_tokens_total") >= 3, what="vLLM counted")
    assert "vllm:num_requests_running" in vllm_fleet.page("/metrics")[1]


def test_health_and_readiness_have_pages(fleet: RunningFleet) -> None:
    """What probes ask; an unknown page says what there is."""
    assert (fleet.page("/health")[0], fleet.page("/ready")[0]) == (200, 200)
    assert json.loads(fleet.page("/ready")[1]) == {"phase": "ready", "model": fleet.served, "cause": None}
    assert fleet.page("/nothing") == (404, "/metrics, /health and /ready are here\n")


def test_a_worker_is_healthy_but_not_ready_while_it_loads(redis_url: str, tmp_path: Path) -> None:
    """Start-up probes must not kill a worker that loads, and no job may go to it."""
    fleet = simulated(redis_url, tmp_path, start_seconds=3)
    fleet.start()
    try:
        eventually(lambda: fleet.page("/health")[0] == 200, what="the page answers")
        assert fleet.page("/ready")[0] == 503
        assert json.loads(fleet.page("/ready")[1])["phase"] == "loading"
        fleet.wait_until_ready()
    finally:
        fleet.stop()


def test_bursts_enter_the_engine_in_micro_batches(redis_url: str, tmp_path: Path) -> None:
    """batch_max_jobs bounds each drain, batch_max_wait_ms lets one fill while the engine is busy."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.005)
    fleet.options = dict(fleet.options) | {"worker.batch_max_jobs": 8, "worker.batch_max_wait_ms": 200}
    with fleet, fleet.producer() as producer:
        requests = [
            {"model": "sim", "prompt": f"job {n}", "sampling": {"max_tokens": 60, "ignore_eos": True}}
            for n in range(64)
        ]
        assert all(outcome.result for outcome in producer.map(requests))
        drains, jobs = fleet.metric("fleet_drain_size_jobs_count"), fleet.metric("fleet_drain_size_jobs_sum")
        assert jobs == 64
        assert fleet.metric("fleet_drain_size_jobs_bucket", le="8.0") == drains
        assert jobs / drains >= 4


@pytest.fixture
def flower(simulated_fleet: RunningFleet, tmp_path: Path) -> Iterator[RunningFlower]:
    """Flower over the simulated fleet, which it knows."""
    with running_flower(simulated_fleet.redis_url, tmp_path) as started:
        yield started


def test_flower_shows_every_job_with_its_true_runtime(simulated_fleet: RunningFleet, flower: RunningFlower) -> None:
    """Sent, received, started, then succeeded or failed; the runtime is the engine's, not the recording's."""

    def task(job_id: str) -> dict[str, Any]:
        return flower.get(f"/api/task/info/{job_id}")

    with simulated_fleet.producer() as producer:
        slow = producer.submit(
            model="sim", prompt="secret words", sampling={"max_tokens": 10}, metadata={"simulate": "slow:1.0"}
        )
        eventually(lambda: task(slow.job_id).get("state") == "STARTED", what="STARTED in Flower")
        assert task(slow.job_id)["sent"] is not None
        producer.result(slow, timeout_seconds=60)
        failing = producer.submit(model="sim", prompt="x", metadata={"simulate": "fails"})
        eventually(lambda: task(slow.job_id).get("state") == "SUCCESS", what="SUCCESS in Flower")
        eventually(lambda: task(failing.job_id).get("state") == "FAILURE", what="FAILURE in Flower")
    done = task(slow.job_id)
    assert 1.0 <= done["runtime"] < 5.0
    assert all(done[moment] is not None for moment in ("sent", "received", "started", "succeeded"))
    assert "secret" not in done["args"]
    assert task(failing.job_id)["failed"] is not None


def test_flower_shows_the_length_of_the_queue(simulated_fleet: RunningFleet, flower: RunningFlower) -> None:
    """All four lanes count."""

    def length() -> int:
        queues = flower.get("/api/queues/length").get("active_queues", [])
        return next((q["messages"] for q in queues if q["name"] == "fleet.sim"), 0)

    with simulated_fleet.producer() as producer:
        jobs = [
            producer.submit(
                model="sim", prompt=f"q {n}", priority="batch" if n % 2 else "normal", metadata={"simulate": "slow:0.5"}
            )
            for n in range(400)
        ]
        eventually(lambda: length() > 100, what="a queue in Flower")
        for job in jobs:
            producer.result(job, timeout_seconds=60)
        eventually(lambda: length() == 0, what="an empty queue in Flower")
