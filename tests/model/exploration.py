"""Every sequence of steps up to a depth, on the real scripts; states that were seen are not gone into again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.fleet_model import Fleet, Step, after, steps
from tests.model.invariants import bring_to_an_end, check_state, check_step, forsaken, predicted
from tests.model.lease_world import LeaseWorld, Snapshot


@dataclass(frozen=True, slots=True)
class Node:
    """A state, and how to come back to it."""

    fleet: Fleet
    snapshot: Snapshot
    tags: dict[int, str]
    trail: tuple[Step, ...]
    """One way there."""


@dataclass(slots=True)
class Level:
    """What was found at one depth, all before it included."""

    depth: int
    states: int
    transitions: int
    is_last: bool
    """Nothing new was found: every state that can be reached was gone through."""


class Exploration:
    """Breadth first from the states that it is given."""

    def __init__(self, world: LeaseWorld) -> None:
        self._world = world
        self._seen: set[bytes] = set()
        self._brought_to_an_end: set[bytes] = set()
        self._transitions = 0

    def levels(self, start: Fleet, depth: int) -> Iterator[Level]:
        """Go one depth deeper each time."""
        self._world.restore({})
        self._is_new(start)
        frontier = [self._node(start, ())]
        for reached in range(1, depth + 1):
            frontier = [found for node in frontier for found in self._successors(node)]
            yield Level(reached, len(self._seen), self._transitions, not frontier)
            if not frontier:
                return

    def _node(self, fleet: Fleet, trail: tuple[Step, ...]) -> Node:
        return Node(fleet, self._world.snapshot(), dict(self._world.tags), trail)

    def _is_new(self, fleet: Fleet) -> bool:
        return _added(fleet, self._seen)

    def _bring_to_an_end(self, fleet: Fleet) -> None:
        lost = fleet
        for step in forsaken(fleet):
            lost, _ = after(lost, step)
        if _added(lost, self._brought_to_an_end):
            bring_to_an_end(fleet, self._world)

    def _successors(self, node: Node) -> Iterator[Node]:
        self._go_to(node)
        for step in steps(node.fleet):
            try:
                found = self._take(node.fleet, step)
                if self._is_new(found):
                    check_state(found, self._world)
                    yield self._node(found, (*node.trail, step))
                    self._bring_to_an_end(found)
                    self._go_to(node)
                elif found.queue != node.fleet.queue:
                    self._go_to(node)
            except AssertionError as error:
                error.add_note(f"at {step} after {', '.join(map(str, node.trail))}")
                raise

    def _take(self, fleet: Fleet, step: Step) -> Fleet:
        reply = self._world.make(fleet, step)
        found = predicted(fleet, step, reply, self._world.read())
        check_step(fleet, step, reply, found)
        self._transitions += 1
        return found

    def _go_to(self, node: Node) -> None:
        self._world.restore(node.snapshot)
        self._world.tags = dict(node.tags)


def _added(fleet: Fleet, known: set[bytes]) -> bool:
    digest = hashlib.blake2b(repr(fleet.canonical()).encode(), digest_size=16).digest()
    is_new = digest not in known
    known.add(digest)
    return is_new
