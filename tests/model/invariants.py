"""What holds after every step, checked on what the server holds and says: the claim that the fleet makes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tests.model.fleet_model import Fleet, Reply, Step, Worker, after
from tests.model.lease_model import FAILURE, SUCCESS, Queue
from tests.model.lease_world import LeaseWorld

BY_HOLDER = ("finish", "finish unheard", "acknowledge", "hand_back", "retry", "park")
"""Steps that are one claim's, and nothing when its lease is another's."""


def places(queue: Queue) -> Counter[int]:
    """How often each job is somewhere."""
    found: Counter[int] = Counter()
    for lane in queue.lanes:
        found.update(lane)
    found.update(queue.suspects)
    found.update(job for job, _ in queue.delayed)
    found.update(lease.job for lease in queue.leases)
    found.update(job for job, result in enumerate(queue.results) if result)
    return found


def check_state(fleet: Fleet, world: LeaseWorld) -> None:
    """Nothing is lost and nothing is twice; what is done leaves nothing behind."""
    queue, most = fleet.queue, fleet.rules.max_deliveries
    assert places(queue) == Counter(fleet.submitted), "each job is in one place"
    leased = [lease.job for lease in queue.leases]
    assert len(leased) == len(set(leased)), "no job has two leases"
    assert all(lease.delivery <= most + 1 for lease in queue.leases), "no job is delivered without end"
    failed = tuple(job for job, result in enumerate(queue.results) if result and result.status == FAILURE)
    assert queue.dead_letters == failed, "each poisoned job has a letter, and no other"
    for job, record in enumerate(queue.records):
        assert record is None or record.deaths <= most, f"deaths of job {job} are bounded"
        assert record is None or not queue.results[job], f"what is done has no record: job {job}"
    if fleet.is_done:
        assert set(world.side_keys()) <= {world.isolation_key}, "nothing is left behind"


def check_step(before: Fleet, step: Step, reply: Reply, now: Fleet) -> None:
    """What a step may never do."""
    old, new = before.queue, now.queue
    for was, result in zip(old.results, new.results, strict=True):
        assert was is None or result == was, "a result never changes"
    if step.name in BY_HOLDER and old.lease(step.number) is None:
        assert replace(new, isolation=old.isolation) == old, "a stale holder changes nothing"
    if step.name == "hand_back":
        assert new.records == old.records, "a hand-back counts nothing"
    if step.name == "claim":
        _check_claim(before, step, reply, now)
    if step.name in {"finish", "finish unheard"} and new != old:
        status = SUCCESS if before.attempt(step).delivery <= before.rules.max_deliveries else FAILURE
        result = new.results[before.attempt(step).job]
        assert result is not None
        assert result.status == status, "above the last delivery a job is answered, and not run"


def _check_claim(before: Fleet, step: Step, reply: Reply, now: Fleet) -> None:
    is_isolating, claimed = reply
    rules = before.rules
    assert len(claimed) <= step.number, "no more than its credit"
    apart = [one for one in claimed if now.queue.record(one.job).is_suspect and one.delivery <= rules.max_deliveries]
    if not apart:
        assert not claimed or not _runs_suspects(before, before.workers[step.worker]), "nobody joins suspects"
        return
    assert is_isolating
    assert len(apart) == len(claimed), "suspects are claimed with suspects alone"
    assert not before.workers[step.worker].attempts, "and by a worker that holds nothing else"
    if any(one.delivery == rules.max_deliveries for one in apart):
        assert len(apart) == 1, "the last delivery is alone"


def _runs_suspects(fleet: Fleet, worker: Worker) -> bool:
    """By right: one that was cut off for a lease may not have learned yet that it lost everything."""
    return not worker.has_lapsed and any(
        fleet.queue.lease(attempt.number) is not None
        and fleet.queue.record(attempt.job).is_suspect
        and attempt.delivery <= fleet.rules.max_deliveries
        for attempt in worker.attempts
    )


def predicted(fleet: Fleet, step: Step, reply: Reply, queue: Queue) -> Fleet:
    """The state after a step, when the server does and says what the model does and says."""
    expected, expected_reply = after(fleet, step)
    assert reply == expected_reply, f"{step} says what the model says"
    assert queue == expected.queue, f"{step} does what the model does"
    return expected


def forsaken(fleet: Fleet) -> Iterator[Step]:
    """Steps after which everybody is dead, and has been for long."""
    yield from (Step("worker dies", index) for index in range(len(fleet.workers)))
    yield Step("isolation ends")
    yield from (Step("lease ends", number=lease.number) for lease in fleet.queue.leases)
    yield from (Step("comes due", number=job) for job, _ in fleet.queue.delayed)


def bring_to_an_end(fleet: Fleet, world: LeaseWorld) -> None:
    """From any state, when all others are dead, one worker answers everything and leaves nothing."""
    for step in (*forsaken(fleet), Step("reap", number=100)):
        fleet = _told(fleet, step, world)
    while not fleet.is_done:
        left = sum(result is None for result in fleet.queue.results)
        fleet = _told(fleet, Step("claim", 0, fleet.rules.slots), world)
        for attempt in fleet.workers[0].attempts:
            fleet = _told(fleet, Step("finish", 0, attempt.number), world)
        assert sum(result is None for result in fleet.queue.results) < left, "the queue goes on"
    fleet = _told(fleet, Step("claim", 0, 1), world)
    assert world.read() == fleet.queue, "the end is what the model says"
    assert world.side_keys() == [], "nothing is left behind"


def _told(fleet: Fleet, step: Step, world: LeaseWorld) -> Fleet:
    reply = world.make(fleet, step)
    fleet, expected = after(fleet, step)
    assert reply == expected, f"{step} says what the model says"
    return fleet
