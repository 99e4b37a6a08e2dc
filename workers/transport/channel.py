"""Kombu's Redis transports with leases: they stand in for ``redis://`` and its kin in a worker process.

Only the consuming side of the fleet's queue differs. Publishing, control messages, events and replies stay kombu's,
so URLs, Flower and ``inspect`` see what they know. ``tests/contracts/test_kombu_internals.py`` holds kombu to what
this relies on.
"""

import threading
import time
from functools import cached_property
from queue import Empty
from typing import Any, ClassVar, Final

from celery.worker import state as worker_state
from kombu.transport import TRANSPORT_ALIASES, _transport_cache, virtual
from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from workers.transport.arrivals import Arrival, Fate
from workers.transport.broker_connection import (
    PatientConnection,
    PatientMasterConnection,
    PatientSSLConnection,
    WritesRefused,
)
from workers.transport.intake import Batch, Intake
from workers.transport.scripts import BIND_SCRIPT


class LeaseQoS(kombu_redis.QoS):
    """Who may take how much, and what an acknowledgement means, for leased messages; kombu's own for all others."""

    restore_at_shutdown = False  # the pool hands back what it does not finish, and only that

    @property
    def _intake(self) -> Intake:
        intake: Intake = self.channel.intake
        return intake

    def can_consume(self) -> bool:
        """Whether a slot is free."""
        if self.channel.serves_leases:
            return self._intake.credit > 0
        return bool(super().can_consume())

    def can_consume_max_estimate(self) -> int | None:
        """How many slots are free."""
        if self.channel.serves_leases:
            return self._intake.credit
        estimate: int | None = super().can_consume_max_estimate()
        return estimate

    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's message
        """A message was delivered; a leased one is registered already, since its claim."""
        if self._intake.store.is_own(delivery_tag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A message is done; nothing happens when its result acknowledged it."""
        if self._intake.store.is_own(delivery_tag):
            self._intake.acknowledge(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """A message is refused: for another worker, or for good."""
        if not self._intake.store.is_own(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self._intake.hand_back(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_unacked(self, client: object = None) -> None:
        """Nothing: a lost connection is no reason to run again what is running."""

    def restore_visible(self, *_: object, **__: object) -> None:
        """Nothing: the reaper does this."""


class LeaseChannel(kombu_redis.Channel):
    """See the module."""

    QoS = LeaseQoS
    connection_class: Any = PatientConnection
    connection_class_ssl: Any = PatientSSLConnection
    intake: ClassVar[Intake]
    _in_poll: Any
    _awaits_doorbell = False
    _awaits_any = True
    """Or jobs of the most urgent lane alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        self._clients = threading.local()
        super().__init__(*args, **kwargs)

    @property
    def serves_leases(self) -> bool:
        """Whether this channel consumes the fleet's queue."""
        return self.intake.queue in self.active_queues

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's signature
        if asynchronous:
            return super()._create_client(asynchronous=True)
        # Kombu makes a client object for each publish; one per thread and pool does.
        cached = getattr(self._clients, "cached", None)
        if cached is None or cached[0] is not self.pool:
            cached = self._clients.cached = (self.pool, super()._create_client())
        return cached[1]

    @cached_property
    def _refresh_binding(self) -> Any:  # noqa: ANN401 - redis-py's
        """Kombu's script for queues that expire, which its own server may refuse when it is out of memory."""
        return self._create_client().register_script(BIND_SCRIPT)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """As kombu does, and on a server that is out of memory too: who binds here will make room there."""
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except WritesRefused:
            bindings = self.keyprefix_queue % (exchange,)
            staying = self.global_keyprefix + self.keyprefix_binding_permanent % (exchange,)
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            with self.conn_or_acquire() as client:
                self._refresh_binding(keys=[bindings, staying], args=[member, exchange, ""], client=client)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Claim until nothing fits or nothing is left; then wait for the doorbell."""
        if not self.serves_leases:
            super()._brpop_start(timeout)
            return
        batch = self._claim_what_fits()
        if batch.may_block and self.qos.can_consume():
            self._in_poll = self.client.connection
            self._awaits_doorbell = True
            self._brpop_sent_at = time.monotonic()  # type: ignore[assignment]  # kombu's own type is None's
            self._awaits_any = self.intake.takes_any
            doorbells = self.intake.doorbells(any_job=self._awaits_any)
            self.client.connection.send_command("BRPOP", *doorbells, timeout or self.brpop_timeout)

    def _claim_what_fits(self) -> Batch:
        while True:
            batch = self._next_batch()
            self.intake.deliver(batch.arrivals, self._give)
            if batch.is_last:
                return batch

    def claim_aside(self) -> None:
        """A slot for any job became free while this waits for urgent ones: fill it, or wait for any from now on."""
        if self._awaits_doorbell and not self._awaits_any and self.intake.takes_any:
            self._claim_what_fits()
            if self.intake.takes_any:
                self.intake.store.ring_own_doorbell()
                self._awaits_any = True  # as soon as the ring is heard

    def _next_batch(self) -> Batch:
        try:
            return self.intake.next_batch()
        except ResponseError as error:
            # Read-only after a failover, out of memory, or no room on its disk: the server may be well again later,
            # and Celery reconnects for that as it does for a server that is gone.
            raise WritesRefused(str(error)) from error

    def _give(self, arrival: Arrival) -> None:
        if arrival.fate is not Fate.REVOKE:
            self.connection._deliver(arrival.message, self.intake.queue)  # noqa: SLF001 - kombu's own way
            return
        # Celery answers what it knows to be revoked; by id, so it may know it for this submission only.
        job_id = arrival.held.job_id or ""
        worker_state.revoked.add(job_id)
        try:
            self.connection._deliver(arrival.message, self.intake.queue)  # noqa: SLF001 - kombu's own way
        finally:
            worker_state.revoked.discard(job_id)

    def _brpop_read(self, **options: Any) -> bool:  # noqa: ANN401 - redis-py's
        # Not by what is consumed now: a channel that closes reads the last reply when its queues are gone.
        if not self._awaits_doorbell:
            return bool(super()._brpop_read(**options))
        try:
            try:
                rang = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not rang:
                raise Empty
            return True
        finally:
            self._in_poll = None
            self._awaits_doorbell = False
            self._flush_brpop_reauth()


class SentinelLeaseChannel(LeaseChannel, kombu_redis.SentinelChannel):
    """The same on the server that the sentinels call the master."""

    connection_class: Any = PatientMasterConnection
    connection_class_ssl: Any = kombu_redis.SentinelManagedSSLConnection


class LeasePoller(kombu_redis.MultiChannelPoller):
    """Looks for room that became free with every turn of the hub."""

    def on_poll_start(self) -> None:
        """Before the hub waits."""
        super().on_poll_start()
        for channel in list(self._channels):
            if channel.serves_leases:
                channel.claim_aside()


class LeaseTransport(kombu_redis.Transport):
    """Kombu's, with that poller."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        super().__init__(*args, **kwargs)
        self.cycle: Any = LeasePoller()


class SentinelLeaseTransport(LeaseTransport, kombu_redis.SentinelTransport):
    """The same by way of sentinels."""


_KINDS: Final = {
    "redis": (LeaseChannel, LeaseTransport, kombu_redis.Transport),
    "rediss": (LeaseChannel, LeaseTransport, kombu_redis.Transport),
    "sentinel": (SentinelLeaseChannel, SentinelLeaseTransport, kombu_redis.SentinelTransport),
}
"""By the addresses' scheme; the last is what stands there without us."""


def install(intake: Intake) -> None:
    """Make ``redis://``, ``rediss://`` and ``sentinel://`` of this process consume ``intake``'s queue under leases."""
    for alias, (channel, transport, _) in _KINDS.items():
        own_channel = type("Channel", (channel,), {"intake": intake, "__module__": __name__})
        own = type("Transport", (transport,), {"Channel": own_channel, "__module__": __name__})
        TRANSPORT_ALIASES[alias] = lambda own=own: own  # type: ignore[assignment]  # kombu calls what is callable
        _transport_cache.pop(alias, None)


def uninstall() -> None:
    """Give the names back to kombu."""
    for alias, (_, _, transport) in _KINDS.items():
        TRANSPORT_ALIASES[alias] = f"{transport.__module__}:{transport.__qualname__}"
        _transport_cache.pop(alias, None)
