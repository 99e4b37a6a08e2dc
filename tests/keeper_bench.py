"""A keeper of leases over a real queue, turned by hand, on a clock that goes when the test says."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.deliveries import HeldQueue, job_message
from tests.leasing import MODEL, LeaseQueue
from workers.transport.keeper import Callbacks, LeaseKeeper
from workers.transport.lease_store import LeasePolicy, LeaseStore, Renewal
from workers.transport.leases import Leases
from workers.transport.ledger import Held, Ledger

LEASE_SECONDS = 60.0
POLICY = LeasePolicy(lease_seconds=LEASE_SECONDS)
TURN_SECONDS = 10.0
"""Of the test's clock between two turns; half a lease would be a standstill."""


@dataclass
class Clock:
    """Monotonic seconds that pass when the test says; stands in for the ``time`` module."""

    now: float = field(default_factory=time.monotonic)

    def monotonic(self) -> float:
        """What the keeper and the ledger read."""
        return self.now


class RacingStore(LeaseStore):
    """The real store; lets something happen between the keeper's look at the ledger and the renewal."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)
    uptime_seconds: float = 0.0
    """Of the server, by the test's clock."""

    def server_uptime_seconds(self) -> float:
        """What the keeper reads."""
        return self.uptime_seconds

    def renew(self, tags: Iterable[str]) -> Renewal:
        """Renew, after what happens meanwhile."""
        self.meanwhile()
        return super().renew(tags)


@dataclass
class Bench(HeldQueue):
    """A keeper over a real queue, and what it told."""

    clock: Clock
    engine_is_well: threading.Event = field(default_factory=threading.Event)
    lost: list[Held] = field(default_factory=list)
    cancelled: list[Held] = field(default_factory=list)
    reaped: list[int] = field(default_factory=list)

    def keeper(self) -> LeaseKeeper:
        """Not started: most tests turn it by hand."""
        self.engine_is_well.set()
        callbacks = Callbacks(self.engine_is_well.is_set, self.on_lost, self.cancelled.append, self.reaped.append)
        return LeaseKeeper(self.store, self.ledger, callbacks)

    def on_lost(self, held: Held) -> None:
        """What the pool would do."""
        self.lost.append(held)
        if held.job_id == "harmful":
            raise RuntimeError("a bug in the pool")

    @property
    def racing(self) -> RacingStore:
        """The store that lets something happen."""
        assert isinstance(self.store, RacingStore)
        return self.store

    def hold_in_pool(self, *job_ids: str) -> list[Held]:
        """Claim jobs and hand them to the pool."""
        held = self.hold(*job_ids)
        for entry in held:
            self.ledger.enter_pool(entry.tag, object())
        return held

    def turn(self, keeper: LeaseKeeper, times: int = 1) -> None:
        """Turns of a keeper that nothing disturbs."""
        for _ in range(times):
            self.clock.now += TURN_SECONDS
            keeper.tick()

    def age(self, *held: Held) -> None:
        """These leases are about to end."""
        soon = float(self.queue.client.time()[0]) + LEASE_SECONDS / 2
        self.queue.client.zadd(self.queue.keys.leases, {entry.tag: soon for entry in held}, xx=True)

    def is_renewed(self, held: Held) -> bool:
        """Whether its lease is longer than :meth:`age` left it."""
        ends_at = float(self.queue.client.zscore(self.queue.keys.leases, held.tag) or 0)
        return ends_at > float(self.queue.client.time()[0]) + LEASE_SECONDS / 2 + 1

    def leave_dead(self, job_id: str) -> None:
        """A worker took this job and died; its lease has ended."""
        self.queue.push(job_message(job_id))
        [message] = self.queue.store("dead").claim(1, held=0).messages
        self.queue.expire(message.tag)


@contextmanager
def bench_at(url: str, clock: Clock) -> Iterator[Bench]:
    """A bench whose client does not reconnect on its own."""
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=1) as client:
        store = RacingStore(client, MODEL, POLICY, consumer="one", worker="one@host")
        yield Bench(LeaseQueue(client, POLICY), Leases(store, Ledger(LEASE_SECONDS)), clock)
