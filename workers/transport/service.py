"""Everything of this package that one worker process needs, put together."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from producer import keys
from workers.engine.base import Capacity
from workers.transport.appetite import Appetite
from workers.transport.cancel_listener import CancelListener
from workers.transport.channel import install
from workers.transport.intake import Intake, Limits
from workers.transport.keeper import Callbacks, LeaseKeeper
from workers.transport.lease_store import LeasePolicy, LeaseStore
from workers.transport.leases import Leases
from workers.transport.ledger import Ledger
from workers.transport.server_clock import ServerClock
from workers.transport.stream_writer import StreamWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a worker process takes, and how much."""

    model: str
    worker: str
    """Celery node name."""
    slots: int
    """Jobs that it holds at most."""
    reserved_slots: int
    """Of those, the ones that are for the most urgent lane alone."""
    takes_urgent: bool
    """Whether it takes jobs of that lane at all."""
    batch_max_jobs: int
    """Jobs that one claim takes at most."""
    capacity: Capacity
    """What fits into its engine."""
    policy: LeasePolicy
    stream_lifetime_seconds: int = 3600
    """How long what a streamed job said is kept from its last entry."""


class LeaseService:
    """Takes over ``redis://`` of this process; keeps its leases from :meth:`start` to :meth:`stop`."""

    def __init__(self, connect: Callable[[], "redis.Redis"], consumption: Consumption) -> None:
        self._connect = connect
        self._names = keys.QueueKeys(consumption.model)
        self._consumption = consumption
        # Fresh for each process: what a dead one held must never look like ours.
        self._consumer = f"{uuid.uuid4().hex}-"
        self.clock = ServerClock()
        self.ledger = Ledger(consumption.policy.lease_seconds)
        self.store = self._make_store()
        capacity = consumption.capacity
        appetite = Appetite(capacity.kv_cache_tokens, capacity.kv_block_tokens or 1, consumption.reserved_slots)
        appetite.takes_urgent = consumption.takes_urgent
        self.leases = Leases(self.store, self.ledger, appetite)
        self.intake = Intake(
            self.leases,
            self.clock,
            Limits(keys.queue(consumption.model), consumption.slots, consumption.batch_max_jobs),
        )
        install(self.intake)
        self.streams = StreamWriter(connect(), consumption.model, consumption.stream_lifetime_seconds)
        self._keeper: LeaseKeeper | None = None
        self._listener: CancelListener | None = None

    @property
    def consumer(self) -> str:
        """What this process is known by to the queue."""
        return self._consumer

    def _make_store(self) -> LeaseStore:
        consumption = self._consumption
        return LeaseStore(
            self._connect(),
            consumption.model,
            consumption.policy,
            consumer=self._consumer,
            worker=consumption.worker,
        )

    def start(self, callbacks: Callbacks) -> None:
        """Start the threads; each has a connection of its own."""
        self._keeper = LeaseKeeper(self._make_store(), self.ledger, callbacks)
        self._listener = CancelListener(self._connect(), self._names, self.ledger, callbacks.on_cancelled)
        self._keeper.start()
        self._listener.start()
        self.streams.start()

    def stop_claiming(self) -> None:
        """Take nothing more; safe in a signal handler."""
        self.intake.is_claiming = False

    def stop(self) -> None:
        """End the threads; what is done without a result is acknowledged."""
        try:
            self.intake.flush()
        except RedisError as error:
            log.warning("not acknowledged: %s", error, extra={"action": "acknowledgements_lost"})
        self.streams.stop()
        if self._keeper is not None:
            self._keeper.stop()
        if self._listener is not None:
            self._listener.stop()
