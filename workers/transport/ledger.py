"""What this process holds: one entry per delivery from its claim to its end. Credit is counted from it."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from workers.inference.classify import Failed
from workers.transport.claimed import ClaimedMessage
from workers.transport.lease_store import DeadLetter


@dataclass(eq=False)
class Held:
    """One delivery that this process answers for."""

    message: ClaimedMessage
    job_id: str | None
    """None for a message that names no job."""
    submission_token: str | None = None
    """Whose cancellation may touch it; None for what a stock Celery sender pushed."""
    verdict: Failed | None = None
    """The answer that it gets without being run."""
    dead_letter: DeadLetter | None = None
    """Written down together with the verdict."""
    claimed_at: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    in_pool: Any = None
    """The pool's own object for it, once the pool has it."""
    is_ending: bool = False
    """Its end is on the way to the server: when its lease is gone, that may be why."""
    is_cancelled: bool = False
    """Nobody wants it any more; set before the pool had it, the pool does not start it."""

    @property
    def tag(self) -> str:
        """The delivery's tag."""
        return self.message.tag


class Ledger:
    """Thread-safe; ``handover_seconds`` is how long Celery may take to bring a claimed message to the pool."""

    def __init__(self, handover_seconds: float) -> None:
        self._handover_seconds = handover_seconds
        self._lock = threading.Lock()
        self._by_tag: dict[str, Held] = {}
        self._by_job: dict[str, str] = {}
        self.tokens = 0
        """Of all that is held, as their claims estimated them."""
        self.dropped = 0
        """Deliveries that are over, since the start."""

    def __len__(self) -> int:
        return len(self._by_tag)

    def add(self, held: Held) -> None:
        """A message was claimed."""
        with self._lock:
            if held.tag not in self._by_tag:
                self.tokens += held.message.tokens
            self._by_tag[held.tag] = held
            if held.job_id is not None:
                self._by_job[held.job_id] = held.tag

    def enter_pool(self, tag: str, pool_object: object) -> Held | None:
        """The pool has taken it; None when this process does not hold it any more."""
        with self._lock:
            held = self._by_tag.get(tag)
            if held is not None:
                held.in_pool = pool_object
            return held

    def cancel(self, held: Held) -> None:
        """Its submission was cancelled."""
        with self._lock:  # against enter_pool: either the pool sees the mark, or the caller sees the pool's object
            held.is_cancelled = True

    def get(self, tag: str) -> Held | None:
        """The entry of a delivery that is held."""
        return self._by_tag.get(tag)

    def of_job(self, job_id: str) -> Held | None:
        """The entry of a job: of its latest delivery, should it have two."""
        with self._lock:
            return self._by_tag.get(self._by_job.get(job_id, ""))

    def ending(self, tag: str) -> bool:
        """Its end is about to be sent, and whoever sends it hears what became of it; False when it is not held."""
        with self._lock:
            held = self._by_tag.get(tag)
            if held is not None:
                held.is_ending = True
            return held is not None

    def lost(self, tag: str) -> Held | None:
        """The server knows no lease of this tag: the entry, dropped; None when it is over or ending already."""
        held = self._by_tag.get(tag)
        return None if held is None or held.is_ending else self.drop(tag)

    def drop(self, tag: str) -> Held | None:
        """It is over, one way or another; None when it was already."""
        with self._lock:
            held = self._by_tag.pop(tag, None)
            if held is None:
                return None
            self.tokens -= held.message.tokens
            self.dropped += 1
            if held.job_id is not None and self._by_job.get(held.job_id) == tag:
                del self._by_job[held.job_id]
            return held

    def entries(self) -> list[Held]:
        """Everything that is held, the first claimed first."""
        with self._lock:
            return list(self._by_tag.values())

    def worth_renewing(self) -> list[str]:
        """Tags of what the pool holds, and of what was claimed so lately that it is still on its way there.

        A message that Celery keeps elsewhere for long (behind a rate limit, say) is not renewed: nobody works on it.
        """
        oldest = time.monotonic() - self._handover_seconds
        return [held.tag for held in self.entries() if held.in_pool is not None or held.claimed_at >= oldest]
