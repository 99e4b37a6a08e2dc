"""What finishing threads and the result backend need to end a delivery: the store, and what is held."""

from dataclasses import dataclass, field

from workers.transport.appetite import Appetite
from workers.transport.lease_store import Finish, FinishStatus, LeaseStore, Release
from workers.transport.ledger import Held, Ledger


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of this process."""

    store: LeaseStore
    ledger: Ledger
    appetite: Appetite = field(default_factory=Appetite)

    def end(self, ends: list[Finish]) -> dict[str, FinishStatus]:
        """Store results and acknowledge, fenced; by tag what became of each.

        Raises:
            redis.exceptions.RedisError: nothing is known; repeating is safe.
        """
        for end in ends:
            self.ledger.ending(end.tag)
        statuses = dict(zip((end.tag for end in ends), self.store.finish(ends), strict=True)) if ends else {}
        for tag in statuses:
            self.ledger.drop(tag)
        return statuses

    def acknowledge(self, tags: list[str]) -> None:
        """These are done, and nobody asked for a result.

        Raises:
            redis.exceptions.RedisError: nothing is known; repeating is safe.
        """
        self.store.claim(0, 0, tags)
        for tag in tags:
            self.ledger.drop(tag)

    def put_off(self, tag: str, reason: str, delay_seconds: float) -> None:
        """Let the message wait in Redis for another attempt.

        Raises:
            redis.exceptions.RedisError: nothing is known; repeating is safe.
        """
        self.ledger.ending(tag)
        self.store.release([tag], Release.RETRY, reason=reason, delay_seconds=delay_seconds)
        self.ledger.drop(tag)

    def held_for(self, job_id: str, tag: str | None) -> Held | None:
        """The delivery that a result of this job ends: the one under ``tag`` if that is this job's, else its latest."""
        held = self.ledger.get(tag) if tag is not None else None
        return held if held is not None and held.job_id == job_id else self.ledger.of_job(job_id)
