"""What the scripts are to do, without a server: a queue, its workers, and every step between two states.

States are values. Time is not a number but a step: a lease is live or has ended, a delay is over or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
MAX_RETRIES: Final = 1
"""Workers give up after so many."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change."""

    lane_of: tuple[int, ...]
    """Of each job, 0 for the most urgent."""
    slots: int
    """Of each worker."""
    in_flows: bool = False
    """The jobs are a tenant's: each has a number of its own in the lane, and comes back to it."""
    max_deliveries: int = 3
    group_jobs: int = 8


class Lease(NamedTuple):
    """One claim that has not ended."""

    number: int
    """Of the claim; grows with each."""
    job: int
    delivery: int
    has_ended: bool = False
    """Its time is up; nobody took it over yet."""


class Record(NamedTuple):
    """What went wrong with a job."""

    deaths: int = 0
    retries: int = 0
    is_suspect: bool = False


class Result(NamedTuple):
    """The stored answer."""

    status: str
    number: int
    """The claim that wrote it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """All that the server holds. Orders: the first to be claimed first; leases by number."""

    lanes: tuple[tuple[int, ...], ...]
    suspects: tuple[int, ...]
    delayed: tuple[tuple[int, bool], ...]
    """Jobs that were put off, and whether their time has come."""
    leases: tuple[Lease, ...]
    records: tuple[Record | None, ...]
    results: tuple[Result | None, ...]
    dead_letters: tuple[int, ...]
    isolation: str | None
    """The consumer that runs suspects."""
    claims: int

    def lease(self, number: int) -> Lease | None:
        """The lease of this claim, unless it is over."""
        return next((lease for lease in self.leases if lease.number == number), None)

    def record(self, job: int) -> Record:
        """What went wrong with it."""
        return self.records[job] or Record()


class Claimed(NamedTuple):
    """One message of a claim's reply."""

    number: int
    job: int
    delivery: int
    retries: int


def empty(rules: Rules) -> Queue:
    """Before the first job."""
    nothing = (None,) * len(rules.lane_of)
    return Queue(((),) * 4, (), (), (), nothing, nothing, (), None, 0)


def submit(queue: Queue, rules: Rules, job: int) -> Queue:
    """To the far end of its lane."""
    return _in_lane(queue, rules, job, first=False)


def _in_lane(queue: Queue, rules: Rules, job: int, *, first: bool) -> Queue:
    lanes = list(queue.lanes)
    lane = lanes[rules.lane_of[job]]
    changed = (job, *lane) if first else (*lane, job)
    lanes[rules.lane_of[job]] = tuple(sorted(changed)) if rules.in_flows else changed
    return replace(queue, lanes=tuple(lanes))


def _put_back(queue: Queue, rules: Rules, job: int) -> Queue:
    record = queue.record(job)
    if record.is_suspect and record.deaths < rules.max_deliveries:
        return replace(queue, suspects=(job, *queue.suspects))
    return _in_lane(queue, rules, job, first=True)


def _recorded(queue: Queue, job: int, record: Record | None) -> Queue:
    records = (*queue.records[:job], record, *queue.records[job + 1 :])
    return replace(queue, records=records)


def _without(queue: Queue, leases: Iterable[Lease]) -> Queue:
    over = {lease.number for lease in leases}
    return replace(queue, leases=tuple(lease for lease in queue.leases if lease.number not in over))


def claim(queue: Queue, rules: Rules, consumer: str, room: tuple[int, int]) -> tuple[Queue, bool, list[Claimed]]:
    """``room`` is credit and jobs held; the queue after it, whether suspects are run, and what was claimed."""
    credit, held = room
    queue = _what_is_due(queue, rules)
    queue, is_isolating = _isolation(queue, consumer, held)
    claimed: list[Claimed] = []
    if is_isolating and held:
        return queue, True, claimed
    if is_isolating:
        queue, claimed = _claim_suspects(queue, rules, min(credit, rules.group_jobs))
    else:
        for lane in range(len(queue.lanes)):
            while queue.lanes[lane] and len(claimed) < credit:
                job, *rest = queue.lanes[lane]
                lanes = (*queue.lanes[:lane], tuple(rest), *queue.lanes[lane + 1 :])
                queue, one = _leased(replace(queue, lanes=lanes), job)
                claimed.append(one)
    return queue, is_isolating, claimed


def _what_is_due(queue: Queue, rules: Rules) -> Queue:
    # All at one moment, so the server sorts them by what they are: the lane, then the message.
    due = sorted((job for job, is_due in queue.delayed if is_due), key=lambda job: (rules.lane_of[job], job))
    queue = replace(queue, delayed=tuple(entry for entry in queue.delayed if not entry[1]))
    for job in reversed(due):
        queue = _put_back(queue, rules, job)
    return queue


def _isolation(queue: Queue, consumer: str, held: int) -> tuple[Queue, bool]:
    if queue.isolation is None and queue.suspects:
        queue = replace(queue, isolation=consumer)
    if queue.isolation != consumer:
        return queue, False
    if held or queue.suspects:
        return queue, True
    return replace(queue, isolation=None), False


def _claim_suspects(queue: Queue, rules: Rules, credit: int) -> tuple[Queue, list[Claimed]]:
    claimed: list[Claimed] = []
    while queue.suspects and len(claimed) < credit:
        job, *rest = queue.suspects
        is_last_delivery = queue.record(job).deaths + 1 >= rules.max_deliveries
        if is_last_delivery and claimed:
            break
        queue, one = _leased(replace(queue, suspects=tuple(rest)), job)
        claimed.append(one)
        if is_last_delivery:
            break
    return queue, claimed


def _leased(queue: Queue, job: int) -> tuple[Queue, Claimed]:
    record = queue.record(job)
    number = queue.claims + 1
    lease = Lease(number, job, record.deaths + 1)
    queue = replace(queue, claims=number, leases=(*queue.leases, lease))
    return queue, Claimed(number, job, lease.delivery, record.retries)


def finish(queue: Queue, rules: Rules, number: int, job: int) -> tuple[Queue, str]:
    """The end of a job by the holder of this claim, or by somebody who thinks to be; what the reply says."""
    lease, stored = queue.lease(number), queue.results[job]
    if lease is None:
        return queue, "stored" if stored is not None and stored.number == number else "fenced"
    is_poisoned = lease.delivery > rules.max_deliveries
    queue = _recorded(_without(queue, [lease]), job, None)
    if stored is not None:
        return queue, "kept"
    if is_poisoned:
        queue = replace(queue, dead_letters=tuple(sorted({*queue.dead_letters, job})))
    result = Result(FAILURE if is_poisoned else SUCCESS, number)
    return replace(queue, results=(*queue.results[:job], result, *queue.results[job + 1 :])), "stored"


def renew(queue: Queue, numbers: Iterable[int]) -> tuple[Queue, frozenset[int]]:
    """Leases that had ended live again, unless somebody took them; the claims that were lost."""
    held = frozenset(numbers)
    leases = tuple(lease._replace(has_ended=lease.has_ended and lease.number not in held) for lease in queue.leases)
    return replace(queue, leases=leases), held - {lease.number for lease in leases}


def reap(queue: Queue, rules: Rules, limit: int) -> tuple[Queue, tuple[int, ...]]:
    """The last claimed of the ended leases go back first; their numbers."""
    ended = [lease for lease in reversed(queue.leases) if lease.has_ended][:limit]
    queue = _without(queue, ended)
    for lease in ended:
        queue = _count_death(queue, rules, lease.job, is_suspect=False)
    return queue, tuple(lease.number for lease in ended)


def _count_death(queue: Queue, rules: Rules, job: int, *, is_suspect: bool) -> Queue:
    record = queue.record(job)
    if record.deaths < rules.max_deliveries:
        deaths = record.deaths + 1
        is_apart = record.is_suspect or is_suspect or deaths == rules.max_deliveries - 1
        queue = _recorded(queue, job, Record(deaths, record.retries, is_apart))
    return _put_back(queue, rules, job)


def give_up(queue: Queue, rules: Rules, numbers: Iterable[int], how: str) -> tuple[Queue, int]:
    """Leases released in one of the four ways, the last claimed first; how many there were."""
    given = [lease for number in sorted(numbers, reverse=True) if (lease := queue.lease(number))]
    queue = _without(queue, given)
    for lease in given:
        queue = _given_up(queue, rules, lease.job, how)
    return queue, len(given)


def _given_up(queue: Queue, rules: Rules, job: int, how: str) -> Queue:
    if how == "suspect":
        return _count_death(queue, rules, job, is_suspect=True)
    if how == "hand_back":
        return _put_back(queue, rules, job)
    if how == "retry":
        record = queue.record(job)
        queue = _recorded(queue, job, record._replace(retries=record.retries + 1))
    return replace(queue, delayed=tuple(sorted([*queue.delayed, (job, False)])))


def pass_lease(queue: Queue, number: int) -> Queue:
    """The time of a lease is up."""
    leases = tuple(lease._replace(has_ended=lease.has_ended or lease.number == number) for lease in queue.leases)
    return replace(queue, leases=leases)


def come_due(queue: Queue, job: int) -> Queue:
    """The time of a job that was put off has come."""
    return replace(queue, delayed=tuple(sorted((other, due or other == job) for other, due in queue.delayed)))
