"""From free slots to messages: claims, parses and screens, and acts on every fate but delivery."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer import keys
from workers.transport.arrivals import Arrival, Fate, Rules, judge, parse, screenable
from workers.transport.claimed import Claim
from workers.transport.lease_store import Release, Screening
from workers.transport.leases import Leases
from workers.transport.ledger import Held
from workers.transport.server_clock import ServerClock

log = logging.getLogger(__name__)

FULL_SECONDS: Final = 0.25
"""How long a job that did not fit is not looked at again, while nothing has ended: a neighbour may have taken it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one claim leaves to deliver."""

    arrivals: tuple[Arrival, ...]
    is_last: bool
    """Nothing more to claim at this moment: wait for the doorbell."""
    may_block: bool
    """False while suspects are run apart, or what is next does not fit: the doorbell is for others then."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken, and how much."""

    queue: str
    """Celery's name of it."""
    slots: int
    """Jobs held at most, those in reserved slots included."""
    batch_max_jobs: int
    """Jobs in one claim at most."""


class Intake:
    """The consuming side of one queue in this process. Only the hub's thread claims; any thread may acknowledge."""

    def __init__(self, leases: Leases, clock: ServerClock, limits: Limits) -> None:
        self.store = leases.store
        self.ledger = leases.ledger
        self.appetite = leases.appetite
        self.clock = clock
        self.queue = limits.queue
        self.is_claiming = True
        self._slots = limits.slots
        self._batch_max_jobs = limits.batch_max_jobs
        self._acknowledged: deque[str] = deque()
        self._is_in_doubt = False
        self._full: tuple[int, float] | None = None
        """What was over, and when, as the last claim found that there is no memory for what is next."""

    @property
    def credit(self) -> int:
        """Jobs that fit now."""
        if not self.is_claiming or self._is_still_full():
            return 0
        return max(0, self._slots - len(self.ledger))

    @property
    def takes_any(self) -> bool:
        """Whether more than the most urgent lane's jobs would fit."""
        return self.credit > self.appetite.reserved_slots

    def doorbells(self, *, any_job: bool) -> list[str]:
        """Where to wait for any job, or for urgent ones alone: who could not take a job is not to take its token.

        And where this worker alone is called.
        """
        names = keys.QueueKeys.of_queue(self.queue)
        urgent = [names.urgent_doorbell] if self.appetite.takes_urgent else []
        return [*urgent, self.store.own_doorbell, *([names.doorbell] if any_job else [])]

    def _is_still_full(self) -> bool:
        if self._full is None:
            return False
        dropped, found_at = self._full
        if self.ledger.dropped != dropped or time.monotonic() - found_at > FULL_SECONDS:
            self._full = None
        return self._full is not None

    def acknowledge(self, tag: str) -> None:
        """A message is done without a result of its own; it leaves Redis with the next claim."""
        if self.ledger.drop(tag) is not None:
            self._acknowledged.append(tag)

    def hand_back(self, tag: str) -> None:
        """A message is refused by Celery, for another worker."""
        if self.ledger.drop(tag) is not None:
            self.store.release([tag], Release.HAND_BACK)

    def flush(self) -> None:
        """Acknowledge what waits for a claim that may not come."""
        if self._acknowledged:
            self._claim(0)

    def next_batch(self) -> Batch:
        """Claim once; at most what fits."""
        credit = min(self.credit, self._batch_max_jobs)
        if not credit:
            self.flush()
            return Batch((), is_last=True, may_block=False)
        claim = self._claim(credit)
        self.clock.heard(claim.server_seconds)
        self.appetite.took(claim.messages)
        if claim.is_full:
            self._full = (self.ledger.dropped, time.monotonic())
            self.appetite.met_full_memory()
        arrivals = tuple(self._admitted(claim))
        is_last = claim.is_isolating or claim.is_full or len(claim.messages) < credit
        return Batch(arrivals, is_last=is_last, may_block=not (claim.is_isolating or claim.is_full))

    def _claim(self, credit: int) -> Claim:
        acknowledge = []
        while self._acknowledged:
            acknowledge.append(self._acknowledged.popleft())
        try:
            if self._is_in_doubt:
                self._hand_back_unknown(done=acknowledge)
            room = self.appetite.room(self.ledger.tokens)
            claim = self.store.claim(credit, len(self.ledger), acknowledge, room)
        except BaseException:
            self._acknowledged.extend(acknowledge)  # acknowledging twice changes nothing
            # The server may have claimed for us, and only its reply was lost.
            self._is_in_doubt = True
            raise
        self._is_in_doubt = False
        return claim

    def _hand_back_unknown(self, done: Sequence[str]) -> None:
        unknown = [tag for tag in self.store.own_tags() if self.ledger.get(tag) is None and tag not in done]
        if unknown and (count := self.store.release(unknown, Release.HAND_BACK)):
            log.info("%d claims whose reply was lost go back", count, extra={"action": "claims_handed_back"})

    def _admitted(self, claim: Claim) -> Iterator[Arrival]:
        parsed = [parse(message) for message in claim.messages]
        for message, item in zip(claim.messages, parsed, strict=True):
            # Entered before anything can fail: what is in the ledger is handed back when this process ends.
            self.ledger.add(Held(message, None if isinstance(item, str) else item[1] or None))
        job_ids = screenable(parsed)
        answers = dict(zip(job_ids, self.store.screen(job_ids), strict=True)) if job_ids else {}
        rules = Rules(self.queue, self.store.policy.max_deliveries, claim.server_seconds, self.clock.offset_seconds)
        for message, item in zip(claim.messages, parsed, strict=True):
            job_id = "" if isinstance(item, str) else item[1]
            arrival = judge(message, item, answers.get(job_id, (Screening.RUN, "")), rules)
            self.ledger.add(arrival.held)
            if arrival.fate in {Fate.DELIVER, Fate.REVOKE}:
                yield arrival
            else:
                self._settle(arrival)

    def _settle(self, arrival: Arrival) -> None:
        held = arrival.held
        match arrival.fate:
            case Fate.ACKNOWLEDGE:
                log.info("has a result already", extra={"action": "job_settled", "job_id": held.job_id})
                self.acknowledge(held.tag)
                self.store.forget_cancels([held.job_id] if held.job_id else [])
            case Fate.PARK:
                self.ledger.drop(held.tag)
                self.store.release([held.tag], Release.PARK, delay_seconds=arrival.delay_seconds)
            case _:
                if held.dead_letter is not None and self.store.bury(held.tag, held.dead_letter):
                    letter_id = held.dead_letter.letter_id
                    log.error("no message: see fleet dead show %s", letter_id, extra={"action": "message_quarantined"})
                self.ledger.drop(held.tag)

    def deliver(self, arrivals: Sequence[Arrival], give: Callable[[Arrival], Any]) -> None:
        """Hand arrivals over one by one; when that fails, those that are left go back at once."""
        left = deque(arrivals)
        try:
            while left:
                give(left.popleft())
        finally:
            for arrival in left:
                self.hand_back(arrival.held.tag)
