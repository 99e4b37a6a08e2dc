"""The exporter beside a real fleet, and a real Flower that it keeps true."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import Priority, Producer
from producer.contract import GenerationRequest
from tests.burying import Undertaker
from tests.exporters import RunningExporter, running_exporter
from tests.flowers import running_flower
from tests.running import page_of, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """One that a test may stop."""
    (tmp_path / "server").mkdir()
    with EmbeddedServer(tmp_path / "server", free_port()) as started:
        yield started


@pytest.fixture
def exporter(server: EmbeddedServer, tmp_path: Path) -> Iterator[RunningExporter]:
    """On that server."""
    with running_exporter(server.url, tmp_path, FLEET_EXPORTER__RECONCILE_SECONDS="0.5") as started:
        yield started


@pytest.fixture
def producer(server: EmbeddedServer) -> Iterator[Producer]:
    """On that server."""
    with Producer(server.url) as opened:
        yield opened


def test_a_fleet_without_models_has_figures_of_its_server_alone(exporter: RunningExporter) -> None:
    """And does not need more to be scraped."""
    assert exporter.value("fleet_redis_up") == 1
    assert exporter.value("fleet_redis_used_memory_bytes") > 100_000
    assert exporter.value("fleet_redis_persists") == 1
    assert exporter.value("fleet_webhooks_due") == 0
    assert exporter.series("fleet_queue_waiting_jobs") == []
    assert exporter.value("process_resident_memory_bytes") > 0


def test_a_queue_is_told_by_lane_with_its_age_and_its_work(exporter: RunningExporter, producer: Producer) -> None:
    """Flows and lists, prompts of text and of tokens, outputs that are named and that are not."""
    producer.declare_model("m")
    producer.set_queue_limit("m", 99)
    for _ in range(3):
        producer.submit(model="m", prompt="x" * 400, sampling={"max_tokens": 50}, tenant="acme")
    producer.submit(model="m", prompt_token_ids=[1] * 1000, priority=Priority.BATCH, tenant="acme")
    producer.submit(model="m", prompt="y" * 4000, priority=Priority.BACKGROUND, sampling={"max_tokens": 24})
    waiting = {lane.value: exporter.value("fleet_queue_waiting_jobs", model="m", lane=lane.value) for lane in Priority}
    assert waiting == {"interactive": 0, "normal": 3, "batch": 1, "background": 1}
    assert exporter.value("fleet_queue_limit_jobs", model="m") == 99
    assert exporter.value("fleet_queue_oldest_seconds", lane="interactive") == 0
    eventually(lambda: exporter.value("fleet_queue_oldest_seconds", lane="normal") > 1, what="it grows older")
    # Bytes count at four to the token; a job that names no output may have 256.
    assert exporter.value("fleet_queue_backlog_tokens") == pytest.approx(3 * 150 + 1256 + 1024, rel=0.05)
    assert exporter.series("fleet_queue_backlog_seconds") == []
    assert exporter.value("fleet_queue_wait_reason", reason="no_ready_worker") == 1
    assert exporter.value("fleet_queue_wait_reason") == 1


def test_a_fleet_at_work_is_told_with_its_rate_and_who_is_there(
    server: EmbeddedServer, exporter: RunningExporter, producer: Producer, tmp_path: Path
) -> None:
    """From a queue that nobody serves to one that is done."""
    producer.declare_model("sim")
    assert exporter.value("fleet_workers_ready", model="sim") == 0
    producer.set_tenant("few", max_running_jobs=1)
    with simulated(server.url, tmp_path, seconds_per_token=0.05, max_num_seqs=2):
        eventually(lambda: exporter.value("fleet_workers", model="sim", phase="ready") == 1, what="it is heard of")
        assert exporter.value("fleet_workers_ready", model="sim") == 1
        assert exporter.value("fleet_workers_slots", model="sim") >= 2
        requests = [
            GenerationRequest(model="sim", prompt="x", tenant="few", sampling={"max_tokens": 60, "ignore_eos": True})
            for _ in range(4)
        ]
        jobs = [submitted.unwrap() for submitted in producer.submit_many(requests)]
        eventually(lambda: exporter.value("fleet_queue_held_tenants", model="sim") == 1, what="the tenant is held")
        assert exporter.value("fleet_queue_leased_jobs", model="sim") == 1
        assert exporter.value("fleet_queue_wait_reason", model="sim", reason="tenant_limit") == 1
        assert exporter.value("fleet_queue_late_leases", model="sim") == 0
        for job in jobs:
            producer.result(job, timeout_seconds=60)
        assert exporter.value("fleet_queue_drain_jobs_per_second", model="sim") == pytest.approx(0.4, abs=0.35)
        assert exporter.value("fleet_queue_backlog_seconds", model="sim") == 0
        assert exporter.value("fleet_queue_backlog_tokens", model="sim") == 0
        one, all_tokens = "fleet_queue_drain_jobs_per_second", "fleet_queue_drain_tokens_per_second"
        assert exporter.value(all_tokens) == pytest.approx(61 * exporter.value(one), rel=0.2)


def test_what_went_wrong_is_counted_by_model(
    server: EmbeddedServer, exporter: RunningExporter, producer: Producer
) -> None:
    """Dead letters come and go; a job that lost its worker counts until it is done."""
    with redis.Redis.from_url(server.url) as client:
        for model in ("one", "two"):
            producer.declare_model(model)
            producer.submit(model=model, prompt="x")
            letter = Undertaker(client, model).poison()
        assert exporter.value("fleet_dead_letters", model="one") == 1
        assert exporter.value("fleet_dead_letters", model="two") == 1
        producer.purge_dead_letters([letter])
        assert exporter.value("fleet_dead_letters", model="two") == 0
        producer.submit(model="one", prompt="x")
        Undertaker(client, "one").claim()
        eventually(lambda: exporter.value("fleet_queue_late_leases", model="one") == 1, what="nobody renews it")


def test_webhooks_that_are_late_say_so(exporter: RunningExporter, producer: Producer) -> None:
    """Noted with the job; none is late while the job has not ended."""
    producer.declare_model("m")
    producer.create_webhook_secret("acme")
    producer.submit(model="m", prompt="x", tenant="acme", webhook="https://example.com/hook")
    assert exporter.value("fleet_webhooks_awaiting") == 1
    assert exporter.value("fleet_webhooks_late_seconds") == 0


def test_a_server_that_is_away_is_a_figure_and_not_an_end(
    exporter: RunningExporter, server: EmbeddedServer, tmp_path: Path
) -> None:
    """The rest is absent, so that nobody takes old figures for new ones."""
    server.__exit__(None, None, None)
    eventually(lambda: exporter.series("fleet_redis_up") == [0], what="it says that Redis is away")
    assert exporter.series("fleet_redis_used_memory_bytes") == []
    assert page_of(f"{exporter.address}/health")[0] == 200
    assert page_of(f"{exporter.address}/nothing") == (404, "/metrics and /health are here\n")
    with EmbeddedServer(tmp_path / "server", int(server.url.split(":")[-1].split("/")[0])):
        eventually(lambda: exporter.series("fleet_redis_up") == [1], what="it is back")


def test_flower_is_told_what_became_of_a_killed_workers_jobs(
    server: EmbeddedServer, exporter: RunningExporter, producer: Producer, tmp_path: Path
) -> None:
    """A job that ran when its worker was killed is not shown as running, but as waiting again, and then as done."""
    assert exporter.value("fleet_redis_up") == 1
    fleet = simulated(server.url, tmp_path, seconds_per_token=0.05)
    with fleet, running_flower(server.url, tmp_path) as flower:
        sampling = {"max_tokens": 400, "ignore_eos": True}
        job = producer.submit(model="sim", prompt="x", sampling=sampling).job_id
        cancelled = producer.submit(model="sim", prompt="x", sampling=sampling).job_id
        eventually(lambda: {flower.state(job), flower.state(cancelled)} == {"STARTED"}, what="Flower sees them run")
        fleet.kill()
        eventually(lambda: flower.state(job) == "RETRY", what="Flower is told", seconds=60)
        producer.cancel(cancelled)
        eventually(lambda: flower.state(cancelled) == "REVOKED", what="and of the one that was cancelled")
        fleet.options = dict(fleet.options) | {"engine.options.seconds_per_token": 0.001}
        fleet.start()
        producer.result(job, timeout_seconds=60)
        eventually(lambda: flower.state(job) == "SUCCESS", what="Flower sees its end")
