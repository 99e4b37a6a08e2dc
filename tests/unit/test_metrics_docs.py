"""docs/metrics.md has every series, and no other."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from producer.contract import Priority
from producer.drain_rate import DrainRate
from producer.queue_counts import LaneCounts, QueueCounts
from workers.exporter.look import FleetStanding, ServerStanding, WebhookStanding
from workers.exporter.series import series_of
from workers.exporter.standing import LaneSample, ModelStanding
from workers.observe.metrics import WorkerMetrics

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
OF_THE_LOOK = {"fleet_redis_up", "fleet_exporter_look_seconds"}
"""Those that are made around a look."""


def written(title: str) -> set[str]:
    """The series in the table below this heading."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def named(family: Metric) -> str:
    """As Prometheus knows its samples, but for a histogram's parts."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_every_series_of_a_worker_is_there() -> None:
    """Those of GPUs are only there with a GPU."""
    registry = CollectorRegistry()
    WorkerMetrics("m", registry)
    found = {named(family) for family in registry.collect()}
    assert {name for name in written("Of a worker process") if not name.startswith("fleet_gpu_")} == found


def test_every_series_of_the_exporter_is_there() -> None:
    """And has a sample, when there is everything."""
    counts = QueueCounts("m", 1, 0, 0, 0, 0, 5, (LaneCounts(Priority.NORMAL, 1, 2.0),))
    model = ModelStanding(counts, [LaneSample(1.0, may_go=True)], 0, 0, 0, DrainRate(1.0, 1.0), [])
    standing = FleetStanding(ServerStanding(1, 1, 1, 0, persists=True), WebhookStanding(0, 0, 0.0, 0), [model])
    families = list(series_of(standing))
    assert {named(family) for family in families} | OF_THE_LOOK == written("Of the exporter")
    assert all(family.samples for family in families)
