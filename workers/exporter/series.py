"""The exporter's series: a look at Redis per scrape, so that they are never older than the scrape."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import redis
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from producer.presence import Phase
from producer.queue_place import WaitReason
from workers.exporter.look import FleetStanding, Lookout, ServerStanding, WebhookStanding
from workers.exporter.standing import ModelStanding

log = logging.getLogger(__name__)

REASONS: Final = (
    WaitReason.NO_READY_WORKER,
    WaitReason.TENANT_LIMIT,
    WaitReason.WORKERS_BUSY,
    WaitReason.STARTING,
)
"""Those that a queue's next job can have."""

BY_MODEL: Final[Sequence[tuple[str, str, Callable[[ModelStanding], float | None]]]] = (
    ("fleet_queue_leased_jobs", "Jobs that a worker has claimed.", lambda one: one.counts.leased),
    ("fleet_queue_delayed_jobs", "Jobs whose time has not come.", lambda one: one.counts.delayed),
    ("fleet_queue_suspect_jobs", "Jobs that may have killed an engine.", lambda one: one.counts.suspect),
    ("fleet_queue_limit_jobs", "Most jobs that may wait, unless any number may.", lambda one: one.counts.max_waiting),
    ("fleet_queue_late_leases", "Leases that ended, or end within a second.", lambda one: one.late_leases),
    ("fleet_queue_redelivered_jobs", "Unfinished jobs that lost a worker or engine.", lambda one: one.redelivered),
    ("fleet_queue_held_tenants", "Tenants, by lane, at their limit of running jobs.", lambda one: one.held_tenants),
    (
        "fleet_queue_backlog_tokens",
        "Prompt and most output of unfinished jobs, from a sample.",
        lambda one: one.backlog_tokens,
    ),
    (
        "fleet_queue_backlog_seconds",
        "Until they are done at the last minute's rate; absent while that is unknown.",
        lambda one: one.backlog_seconds,
    ),
    (
        "fleet_queue_drain_jobs_per_second",
        "Jobs that ended in the last minute, per second; absent when none did.",
        lambda one: one.rate.jobs_per_second if one.rate else None,
    ),
    (
        "fleet_queue_drain_tokens_per_second",
        "Their prompt and output tokens, per second.",
        lambda one: one.rate.tokens_per_second if one.rate else None,
    ),
    ("fleet_workers_ready", "Workers that take jobs now.", lambda one: len(one.ready)),
    (
        "fleet_workers_slots",
        "Jobs that ready workers hold at most.",
        lambda one: sum(worker.slots for worker in one.ready),
    ),
    (
        "fleet_workers_running_jobs",
        "Jobs that ready workers hold.",
        lambda one: sum(worker.running_jobs for worker in one.ready),
    ),
    ("fleet_dead_letters", "Dead letters.", lambda one: one.counts.dead),
)

OF_SERVER: Final[Sequence[tuple[str, str, Callable[[ServerStanding], float]]]] = (
    ("fleet_redis_used_memory_bytes", "Memory that Redis uses.", lambda one: one.used_memory_bytes),
    ("fleet_redis_max_memory_bytes", "Memory that it may use; 0: no limit.", lambda one: one.max_memory_bytes),
    ("fleet_redis_connected_clients", "Its connections.", lambda one: one.connected_clients),
    ("fleet_redis_persists", "1 if a file keeps its data, and was last written well.", lambda one: one.persists),
)

OF_WEBHOOKS: Final[Sequence[tuple[str, str, Callable[[WebhookStanding], float]]]] = (
    ("fleet_webhooks_awaiting", "Webhooks of jobs that have not ended.", lambda one: one.awaiting),
    ("fleet_webhooks_due", "Events that are to be told, now or again later.", lambda one: one.due),
    ("fleet_webhooks_late_seconds", "Since when the first of them is due; 0: none is.", lambda one: one.late_seconds),
    ("fleet_webhooks_dead", "Events that were given up.", lambda one: one.dead),
)


class FleetCollector(Collector):
    """Looks when it is scraped; a Redis that does not answer is told by ``fleet_redis_up`` alone."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._has_trouble = False

    def describe(self) -> Iterable[Metric]:
        """Nothing: to be registered it must not need Redis."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One look."""
        began = time.monotonic()
        standing = self._look()
        yield _gauge("fleet_redis_up", "1 if the exporter's last look at Redis was answered.", standing is not None)
        if standing is not None:
            yield _gauge("fleet_exporter_look_seconds", "How long that took.", time.monotonic() - began)
            yield from series_of(standing)

    def _look(self) -> FleetStanding | None:
        try:
            standing = self._lookout.look()
        except redis.exceptions.RedisError as error:
            if not self._has_trouble:
                log.warning("Redis does not answer: %s", error, extra={"action": "exporter_blind"})
            self._has_trouble = True
            return None
        self._has_trouble = False
        return standing


def series_of(standing: FleetStanding) -> Iterator[Metric]:
    """All that a look has found."""
    for name, text, read in OF_SERVER:
        yield _gauge(name, text, read(standing.server))
    evicted = CounterMetricFamily("fleet_redis_evicted_keys", "Keys that Redis dropped for lack of memory.")
    evicted.add_metric((), standing.server.evicted_keys)
    yield evicted
    for name, text, about in OF_WEBHOOKS:
        yield _gauge(name, text, about(standing.webhooks))
    for name, text, value in BY_MODEL:
        family = GaugeMetricFamily(name, text, labels=("model",))
        for one in standing.models:
            if (number := value(one)) is not None:
                family.add_metric((one.counts.model,), number)
        yield family
    yield from _by_lane(standing.models)
    yield _workers(standing.models)
    yield _reasons(standing.models)


def _by_lane(models: Sequence[ModelStanding]) -> Iterator[Metric]:
    labels = ("model", "lane")
    waiting = GaugeMetricFamily("fleet_queue_waiting_jobs", "Jobs that wait.", labels=labels)
    oldest = GaugeMetricFamily(
        "fleet_queue_oldest_seconds", "Since the lane's oldest job came; 0 where none waits.", labels=labels
    )
    for one in models:
        for lane in one.counts.lanes:
            waiting.add_metric((one.counts.model, lane.priority.value), lane.waiting)
            oldest.add_metric((one.counts.model, lane.priority.value), lane.oldest_seconds or 0.0)
    yield waiting
    yield oldest


def _workers(models: Sequence[ModelStanding]) -> Metric:
    family = GaugeMetricFamily("fleet_workers", "Workers that were heard of, by phase.", labels=("model", "phase"))
    for one in models:
        for phase in Phase:
            number = sum(worker.phase is phase for worker in one.workers)
            family.add_metric((one.counts.model, phase.value), number)
    return family


def _reasons(models: Sequence[ModelStanding]) -> Metric:
    family = GaugeMetricFamily(
        "fleet_queue_wait_reason", "1 for why the next job has not begun, else 0.", labels=("model", "reason")
    )
    for one in models:
        for reason in REASONS:
            family.add_metric((one.counts.model, reason.value), one.wait_reason is reason)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family
