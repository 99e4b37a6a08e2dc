"""The thread that keeps leases alive, takes over those of the dead, and notices what was lost or cancelled.

It has a connection of its own and does nothing else: a busy hub or finisher must not cost a lease.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from workers.transport.lease_store import REAP_LIMIT, LeaseStore, Release
from workers.transport.ledger import Held, Ledger

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
"""Between two looks for expired leases; a job of a dead worker waits this much longer than its lease at most."""
RENEWALS_PER_LEASE: Final = 3
MAX_REAPS_PER_TICK: Final = 50
"""Calls in a row when many leases have expired, each short for the server; our own are renewed between two ticks."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the keeper tells; called on its thread."""

    is_healthy: Callable[[], bool]
    """Whether the engine works on what it holds: leases of a hung one are left to expire."""
    on_lost: Callable[[Held], None]
    """Somebody else has the job now: free its slot, answer nothing."""
    on_cancelled: Callable[[Held], None]
    """Nobody wants the job any more."""
    on_reaped: Callable[[int], None]
    """So many expired leases were handed back."""


class LeaseKeeper:
    """``store`` must have a client that nobody else blocks."""

    def __init__(self, store: LeaseStore, ledger: Ledger, callbacks: Callbacks) -> None:
        self._store = store
        self._ledger = ledger
        self._callbacks = callbacks
        self._stopping = threading.Event()
        self._renew_at = 0.0
        self._well_since: float | None = None
        """Since when, in monotonic seconds, every living worker could renew, as far as this one can tell."""
        self._is_fresh = True
        self._last_tick_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is held then is held for one lease more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            try:
                self.tick()
            except RedisError as error:
                if self._well_since is not None:
                    log.warning("leases cannot be renewed: %s", error, extra={"action": "leases_unreachable"})
                self._well_since = None
                self._is_fresh = False
                self._renew_at = 0.0  # the first thing to do when Redis is back
            except Exception:
                # A keeper that ended in silence would let every lease of this worker expire.
                log.exception("the lease keeper failed", extra={"action": "lease_keeper_failed"})

    def tick(self) -> None:
        """Renew when it is time, then reap."""
        now = time.monotonic()
        lease_seconds = self._store.policy.lease_seconds
        if now - self._last_tick_at > lease_seconds / 2:
            # This process, or Redis, stood still: others may have had no chance to renew either.
            self._well_since = None
            self._renew_at = 0.0
        self._last_tick_at = now
        if now >= self._renew_at and self._callbacks.is_healthy():
            self._renew()
            self._renew_at = now + lease_seconds / RENEWALS_PER_LEASE
        self._reap(now, lease_seconds)

    def _renew(self) -> None:
        tags = self._ledger.worth_renewing()
        renewal = self._store.renew(tags)
        for tag in renewal.lost_tags:
            if (held := self._ledger.lost(tag)) is not None:
                self._callbacks.on_lost(held)
        if renewal.has_cancels:
            self.look_for_cancels()
        self._strand(set(tags))

    def look_for_cancels(self) -> None:
        """Find the held jobs whose submission was cancelled: what a lost control message would have told."""
        held = [entry for entry in self._ledger.entries() if entry.job_id and entry.submission_token]
        tokens = self._store.cancelled_tokens([entry.job_id or "" for entry in held])
        for entry, token in zip(held, tokens, strict=True):
            if token is not None and token == entry.submission_token:
                self._ledger.cancel(entry)
                if entry.in_pool is not None:
                    self._callbacks.on_cancelled(entry)

    def _strand(self, renewed: set[str]) -> None:
        """What Celery never brought to the pool goes back, for somebody who does something with it."""
        for held in self._ledger.entries():
            is_fresh = time.monotonic() - held.claimed_at < self._store.policy.lease_seconds
            if held.in_pool is None and held.tag not in renewed and not is_fresh:
                self._ledger.drop(held.tag)
                # Counted: a message that never gets there must not go round for ever.
                self._store.release([held.tag], Release.SUSPECT, reason="it never reached the worker's pool")

    def _reap(self, now: float, lease_seconds: float) -> None:
        if self._well_since is None:
            # A process that just started has seen no outage, unless the server just started too.
            up_seconds = self._store.server_uptime_seconds() if self._is_fresh else 0.0
            self._well_since = now - min(up_seconds, lease_seconds)
            self._is_fresh = False
        # After an outage every lease has expired. Whoever lives renews at once; only then is the rest the dead's.
        if now - self._well_since < lease_seconds:
            return
        total = 0
        for _ in range(MAX_REAPS_PER_TICK):
            count = len(self._store.reap())
            total += count
            if count < REAP_LIMIT:
                break
        if total:
            log.warning("%d leases had expired", total, extra={"action": "leases_reaped"})
            self._callbacks.on_reaped(total)
