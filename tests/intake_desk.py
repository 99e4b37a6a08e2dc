"""An intake over a real queue, on a server that fails when the test says."""

from collections.abc import Sequence

import redis

from producer import keys
from tests.deliveries import HeldQueue, job_message
from tests.leasing import MODEL
from workers.transport.claimed import Claim
from workers.transport.drain_policy import Room
from workers.transport.intake import Intake, Limits
from workers.transport.lease_store import ANY_ROOM, LeaseStore, Screening
from workers.transport.server_clock import ServerClock

SLOTS = 4


class FailingStore(LeaseStore):
    """The real store; fails like a server that is gone, before it acts or, where a reply is lost, after it."""

    claims_to_fail = 0
    replies_to_lose = 0
    screenings_to_fail = 0

    def claim(self, credit: int, held: int, acknowledge: Sequence[str] = (), room: Room = ANY_ROOM) -> Claim:
        """Claim, unless it is to fail."""
        if self.claims_to_fail:
            self.claims_to_fail -= 1
            raise redis.exceptions.ConnectionError("gone before it acted")
        claim = super().claim(credit, held, acknowledge, room)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise redis.exceptions.ConnectionError("the reply was lost")
        return claim

    def screen(self, job_ids: Sequence[str]) -> list[tuple[Screening, str]]:
        """Screen, unless it is to fail."""
        if self.screenings_to_fail:
            self.screenings_to_fail -= 1
            raise redis.exceptions.ConnectionError("gone after the claim")
        return super().screen(job_ids)


class Desk(HeldQueue):
    """An intake over a real queue."""

    def intake(self, slots: int = SLOTS, batch_max_jobs: int = 64) -> Intake:
        """With this many slots."""
        return Intake(self.leases, ServerClock(), Limits(keys.queue(MODEL), slots, batch_max_jobs))

    @property
    def failing(self) -> FailingStore:
        """The store that can fail."""
        assert isinstance(self.store, FailingStore)
        return self.store

    def push(self, *job_ids: str) -> None:
        """Queue these jobs."""
        self.queue.push(*map(job_message, job_ids))
