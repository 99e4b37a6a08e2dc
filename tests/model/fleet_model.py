"""The queue with its workers: which steps a state allows, and where each leads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, NamedTuple

from tests.model import lease_model as model
from tests.model.lease_model import MAX_RETRIES, Queue, Rules

Reply = Any
"""What a step tells whoever made it: comparable, and different per step."""


class Attempt(NamedTuple):
    """What a worker believes to hold; the lease may be another's by now."""

    number: int
    job: int
    delivery: int
    is_told: bool = False
    """Its end was told, and the reply was lost."""


class Worker(NamedTuple):
    """One process after the other, each with a name of its own."""

    consumer: str
    attempts: tuple[Attempt, ...] = ()
    has_lapsed: bool = False
    """It lost the right to run suspects while it held something: it was cut off for a lease, or longer."""


class Step(NamedTuple):
    """One thing that happens."""

    name: str
    worker: int = -1
    number: int = 0
    """A claim, a job, or how many; see :func:`steps`."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A state."""

    rules: Rules
    queue: Queue
    workers: tuple[Worker, ...]
    submitted: frozenset[int] = frozenset()

    @property
    def is_done(self) -> bool:
        """Whether every submitted job has its result."""
        return all(self.queue.results[job] for job in self.submitted)

    def attempt(self, step: Step) -> Attempt:
        """The one that the step is about."""
        return next(attempt for attempt in self.workers[step.worker].attempts if attempt.number == step.number)

    def with_worker(self, index: int, worker: Worker) -> "Fleet":
        """The same with this worker in its place."""
        return replace(self, workers=(*self.workers[:index], worker, *self.workers[index + 1 :]))

    def canonical(self) -> object:
        """Equal for states that differ in names alone: of claims, of dead processes, and of workers."""
        forms = (self._form(order) for order in permutations(range(len(self.workers))))
        return min(forms, key=repr)

    def _form(self, order: tuple[int, ...]) -> object:
        queue = self.queue
        believed = [attempt.number for worker in self.workers for attempt in worker.attempts]
        known = sorted({*believed, *(lease.number for lease in queue.leases)})
        rank = {number: place for place, number in enumerate(known)}
        names = {self.workers[index].consumer: place for place, index in enumerate(order)}
        return (
            queue.lanes,
            queue.suspects,
            queue.delayed,
            tuple((rank[lease.number], *lease[1:]) for lease in queue.leases),
            queue.records,
            tuple(result and (result.status, rank.get(result.number)) for result in queue.results),
            queue.isolation and names.get(queue.isolation, "dead"),
            tuple(tuple((rank[one.number], *one[1:]) for one in self.workers[index].attempts) for index in order),
            tuple(self.workers[index].has_lapsed for index in order),
            tuple(self.submitted),
        )


def begin(rules: Rules, worker_count: int) -> Fleet:
    """Workers, and an empty queue."""
    return Fleet(rules, model.empty(rules), tuple(Worker(f"w{index}-0") for index in range(worker_count)))


def steps(fleet: Fleet) -> Iterator[Step]:
    """Everything that can happen next."""
    queue = fleet.queue
    for job in range(len(fleet.rules.lane_of)):
        if job not in fleet.submitted:
            yield Step("submit", number=job)
    yield from (Step("lease ends", number=lease.number) for lease in queue.leases if not lease.has_ended)
    yield from (Step("comes due", number=job) for job, is_due in queue.delayed if not is_due)
    if any(lease.has_ended for lease in queue.leases):
        yield from (Step("reap", number=limit) for limit in (1, 100))
    if queue.isolation is not None:
        yield Step("isolation ends")
    for index in range(len(fleet.workers)):
        yield from _of_worker(fleet, index)


def _of_worker(fleet: Fleet, index: int) -> Iterator[Step]:
    worker = fleet.workers[index]
    for credit in range(1, fleet.rules.slots - len(worker.attempts) + 1):
        yield Step("claim", index, credit)
    if worker.attempts:
        yield from (Step(name, index) for name in ("renew", "engine dies"))
    if worker.attempts or fleet.queue.isolation == worker.consumer:
        yield Step("worker dies", index)
    for attempt in worker.attempts:
        yield from (Step(name, index, attempt.number) for name in _of_attempt(fleet, attempt))


def _of_attempt(fleet: Fleet, attempt: Attempt) -> Iterator[str]:
    yield "finish"
    is_held = fleet.queue.lease(attempt.number) is not None
    if not is_held:
        yield "acknowledge"
    if attempt.is_told:
        return
    yield from ("finish unheard", "hand_back")
    if attempt.delivery <= fleet.rules.max_deliveries:
        yield "park"
        if not is_held or fleet.queue.record(attempt.job).retries < MAX_RETRIES:
            yield "retry"


def after(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    """Where a step leads, and what it tells."""
    return _EFFECTS[step.name](fleet, step)


def _submit(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue = model.submit(fleet.queue, fleet.rules, step.number)
    return replace(fleet, queue=queue, submitted=fleet.submitted | {step.number}), None


def _lease_ends(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    return replace(fleet, queue=model.pass_lease(fleet.queue, step.number)), None


def _comes_due(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    return replace(fleet, queue=model.come_due(fleet.queue, step.number)), None


def _isolation_ends(fleet: Fleet, _: Step) -> tuple[Fleet, Reply]:
    workers = (
        worker._replace(has_lapsed=worker.has_lapsed or (worker.consumer == fleet.queue.isolation and bool(worker[1])))
        for worker in fleet.workers
    )
    return replace(fleet, queue=replace(fleet.queue, isolation=None), workers=tuple(workers)), None


def _reap(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue, numbers = model.reap(fleet.queue, fleet.rules, step.number)
    return replace(fleet, queue=queue), numbers


def _claim(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    worker = fleet.workers[step.worker]
    room = (step.number, len(worker.attempts))
    queue, is_isolating, claimed = model.claim(fleet.queue, fleet.rules, worker.consumer, room)
    attempts = (Attempt(one.number, one.job, one.delivery) for one in claimed)
    worker = worker._replace(attempts=(*worker.attempts, *attempts))
    return replace(fleet, queue=queue).with_worker(step.worker, worker), (is_isolating, tuple(claimed))


def _renew(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue, lost = model.renew(fleet.queue, (one.number for one in fleet.workers[step.worker].attempts))
    return replace(fleet, queue=queue), lost


def _forget(fleet: Fleet, step: Step) -> Fleet:
    worker = fleet.workers[step.worker]
    left = tuple(attempt for attempt in worker.attempts if attempt.number != step.number)
    has_lapsed = worker.has_lapsed and bool(left)
    return fleet.with_worker(step.worker, worker._replace(attempts=left, has_lapsed=has_lapsed))


def _finish(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue, status = model.finish(fleet.queue, fleet.rules, step.number, fleet.attempt(step).job)
    return _forget(replace(fleet, queue=queue), step), status


def _finish_unheard(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue, status = model.finish(fleet.queue, fleet.rules, step.number, fleet.attempt(step).job)
    worker = fleet.workers[step.worker]
    attempts = (one._replace(is_told=one.is_told or one.number == step.number) for one in worker.attempts)
    return replace(fleet, queue=queue).with_worker(step.worker, worker._replace(attempts=tuple(attempts))), status


def _acknowledge(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    return _forget(fleet, step), None


def _give_up(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    queue, count = model.give_up(fleet.queue, fleet.rules, [step.number], step.name)
    fleet = _forget(replace(fleet, queue=queue), step)
    return _let_others_isolate(fleet, step.worker) if step.name == "hand_back" else fleet, count


def _let_others_isolate(fleet: Fleet, index: int) -> Fleet:
    worker = fleet.workers[index]
    holds_any = any(fleet.queue.lease(attempt.number) for attempt in worker.attempts)
    if holds_any or fleet.queue.isolation != worker.consumer:
        return fleet
    return replace(fleet, queue=replace(fleet.queue, isolation=None))


def _engine_dies(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    numbers = (attempt.number for attempt in fleet.workers[step.worker].attempts)
    queue, count = model.give_up(fleet.queue, fleet.rules, numbers, "suspect")
    fleet = _let_others_isolate(replace(fleet, queue=queue), step.worker)
    return _worker_dies(fleet, step)[0], count


def _worker_dies(fleet: Fleet, step: Step) -> tuple[Fleet, Reply]:
    name, _, life = fleet.workers[step.worker].consumer.partition("-")
    return fleet.with_worker(step.worker, Worker(f"{name}-{int(life) + 1}")), None


_EFFECTS: dict[str, Callable[[Fleet, Step], tuple[Fleet, Reply]]] = {
    "submit": _submit,
    "lease ends": _lease_ends,
    "comes due": _comes_due,
    "isolation ends": _isolation_ends,
    "reap": _reap,
    "claim": _claim,
    "renew": _renew,
    "finish": _finish,
    "finish unheard": _finish_unheard,
    "acknowledge": _acknowledge,
    "hand_back": _give_up,
    "retry": _give_up,
    "park": _give_up,
    "engine dies": _engine_dies,
    "worker dies": _worker_dies,
}
