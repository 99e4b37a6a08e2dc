"""Queues and workers at a glance."""

from dataclasses import dataclass
from time import monotonic, time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from producer.async_client import AsyncProducer
from producer.gateway.ui.rendering import page
from producer.presence import WorkerPresence
from producer.queue_counts import QueueCounts

KEPT_SECONDS: Final = 1.0
"""How long what was found is kept: any number of operators may look at it, each every few seconds."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one moment."""

    taken_at: float
    """Seconds since the epoch."""
    queues: list[QueueCounts]
    workers: list[WorkerPresence]

    @property
    def served(self) -> frozenset[str]:
        """Models that have a ready worker."""
        return frozenset(worker.model for worker in self.workers if worker.is_ready)


class Overview:
    """The latest snapshot, taken once a second at most."""

    def __init__(self) -> None:
        self._kept: Snapshot | None = None
        self._kept_until = 0.0

    async def snapshot(self, fleet: AsyncProducer) -> Snapshot:
        """It, or a fresh one.

        Raises:
            FleetUnreachable: nobody knows.
        """
        if self._kept is None or monotonic() >= self._kept_until:
            self._kept = Snapshot(time(), await fleet.queues(), await fleet.workers())
            self._kept_until = monotonic() + KEPT_SECONDS
        return self._kept


async def show(request: Request) -> Response:
    """The page, or what of it changes."""
    overview: Overview = request.app.state.overview
    snapshot = await overview.snapshot(request.app.state.producer)
    template = "overview_live.html" if "live" in request.query_params else "overview.html"
    return page(request, template, snapshot=snapshot)
