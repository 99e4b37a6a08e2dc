"""The rules and the dashboards' queries in a real Prometheus, which scrapes a real fleet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from producer import Producer
from producer.contract import GenerationRequest
from tests.exporters import running_exporter
from tests.manifests import operator_tool
from tests.prometheuses import RunningPrometheus, panel_queries, quick_rules, rules, running_prometheus
from tests.running import RunningFleet, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

OF_VLLM: Final = "vllm:"
MADE_OF_VLLM: Final = {"fleet:kv_cache_usage:max", "fleet:preemptions:rate5m"}
"""Recorded from vLLM's series, which the simulated engine has not."""
NEEDS_A_LIMIT: Final = {"fleet:redis_memory:ratio"}
"""The embedded server has no limit of memory."""
IN_TIME_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Watched:
    """A fleet with all that watches it."""

    fleet: RunningFleet
    prometheus: RunningPrometheus
    producer: Producer

    def run_jobs(self, count: int, max_tokens: int = 5) -> None:
        """Jobs with short answers, to their ends."""
        sampling = {"max_tokens": max_tokens, "ignore_eos": True}
        requests = [GenerationRequest(model="sim", prompt="x", sampling=sampling) for _ in range(count)]
        jobs = [submitted.unwrap() for submitted in self.producer.submit_many(requests)]
        for job in jobs:
            self.producer.result(job, timeout_seconds=60)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The rules are the real ones, looked at every second; an alert fires 2 s after it is pending."""
    operator_tool("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        simulated(server.url, folder, seconds_per_token=0.002) as fleet,
        running_exporter(server.url, folder) as exporter,
        Producer(server.url) as producer,
    ):
        targets = {"worker": [f"127.0.0.1:{fleet.port}"], "exporter": [exporter.address.removeprefix("http://")]}
        with running_prometheus(folder, targets, quick_rules(folder / "rules")) as prometheus:
            yield Watched(fleet, prometheus, producer)


def test_every_rule_and_every_panel_has_its_series_in_a_fleet_at_work(watched: Watched) -> None:
    """But those of vLLM, which are looked for on its own page, and panels that say when they are empty."""
    recorded = {rule["record"] for rule in rules("record", "recording.yml")} - MADE_OF_VLLM - NEEDS_A_LIMIT
    asked = {query.expr for query in panel_queries() if not query.may_be_empty and OF_VLLM not in query.expr}
    asked = {expr for expr in asked if not any(name in expr for name in MADE_OF_VLLM)} | recorded
    assert len(asked) > 60
    missing = set(asked)

    def all_have_data() -> bool:
        watched.run_jobs(3)
        missing.intersection_update({expr for expr in missing if not watched.prometheus.samples(expr)})
        return not missing

    try:
        eventually(all_have_data, seconds=IN_TIME_SECONDS, what="every query has data")
    finally:
        assert missing == set()


def test_no_alert_fires_in_a_fleet_that_is_well(watched: Watched) -> None:
    """Every one of them is evaluated, without an error."""
    watched.run_jobs(3)
    groups = watched.prometheus.ask("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in found if rule["type"] == "alerting"} == {rule["alert"] for rule in rules("alert")}
    eventually(
        lambda: all(
            rule["health"] == "ok" for group in watched.prometheus.ask("rules")["groups"] for rule in group["rules"]
        ),
        what="every rule was evaluated",
    )
    # What fired before the first scrape, which a busy machine is late with, must end.
    eventually(
        lambda: "firing" not in {one["state"] for one in watched.prometheus.ask("alerts")["alerts"]}, what="peace"
    )


def test_a_fleet_that_lost_its_worker_is_told_of_and_told_to_be_well_again(watched: Watched) -> None:
    """Pending, firing, gone."""
    alert = "FleetNoReadyWorker"
    was_pending = f'count_over_time(ALERTS{{alertname="{alert}", alertstate="pending"}}[5m])'
    assert watched.prometheus.alert_states(alert) == []
    assert watched.prometheus.samples(was_pending) == []
    watched.fleet.kill()
    try:
        job = watched.producer.submit(model="sim", prompt="x", sampling={"max_tokens": 5})
        eventually(
            lambda: watched.prometheus.alert_states(alert) == ["firing"], seconds=IN_TIME_SECONDS, what=f"{alert} fires"
        )
        assert watched.prometheus.samples(was_pending)
    finally:
        watched.fleet.start()
    watched.producer.result(job, timeout_seconds=60)
    # The rules bridge a minute without the exporter, not one with it.
    eventually(lambda: not watched.prometheus.alert_states(alert), what="it is over")
    eventually(
        lambda: [s["value"][1] for s in watched.prometheus.samples("fleet:engine_restarts:changes15m")] == ["1"],
        what="the new start is counted",
    )


@pytest.mark.vllm
def test_a_real_worker_has_vllms_series_of_rules_and_dashboards(vllm_fleet: RunningFleet) -> None:
    """By their very names, and of the model by its label."""
    with vllm_fleet.producer() as producer:
        job = producer.submit(model=vllm_fleet.served, prompt="Why queues?", sampling={"max_tokens": 4})
        producer.result(job, timeout_seconds=60)
    asked = [query.expr for query in panel_queries()] + [rule["expr"] for rule in rules("record")]
    names = {name for expr in asked for name in re.findall(r"\bvllm:\w+", expr)}
    assert len(names) > 8
    page = vllm_fleet.page("/metrics")[1]
    for name in names:
        assert re.search(rf'^{name}\{{[^}}]*model_name="{vllm_fleet.served}"', page, re.MULTILINE), name
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "fleet_worker_start_time_seconds"):
        assert re.search(rf"^{name}[ {{]", page, re.MULTILINE), name
