"""A paced thread: nothing is forgotten, and much is done at once."""

import threading
import time
from collections.abc import Callable

from tests.waiting import eventually
from workers.paced import Paced

PAUSE_SECONDS = 0.05


class Pile:
    """Something to do, taken away by the thread."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.size = 0
        self.taken: list[int] = []
        self._act = act
        self.paced = Paced("pile", PAUSE_SECONDS, self.take)

    def add(self) -> None:
        """One more."""
        self.size += 1
        self.paced.notify()

    def take(self) -> None:
        """All that is there."""
        size, self.size = self.size, 0
        if size:
            self.taken.append(size)
            self._act(size)


def test_what_comes_in_one_pause_is_done_at_once() -> None:
    """And what comes later is done, too."""
    pile = Pile()
    for _ in range(100):
        pile.add()
    pile.paced.start()
    eventually(lambda: pile.taken == [100], what="the first hundred")
    pile.add()
    eventually(lambda: pile.taken == [100, 1], what="the one after them")
    pile.paced.stop(10.0)


def test_what_comes_while_it_acts_is_done_next() -> None:
    """It looks again."""
    pile = Pile(lambda size: pile.add() if size > 1 else None)
    pile.size = 2
    pile.paced.start()
    pile.paced.notify()
    eventually(lambda: pile.taken == [2, 1], what="the one that came meanwhile")
    pile.paced.stop(10.0)


def test_stopping_does_what_is_left_and_ends_the_thread() -> None:
    """Without waiting for the pause."""
    pile = Pile()
    pile.paced = Paced("slow", 3600.0, pile.take)
    pile.paced.start()
    pile.add()
    began = time.monotonic()
    pile.paced.stop(10.0)
    assert sum(pile.taken) == 1
    assert time.monotonic() - began < 10.0
    assert "slow" not in {thread.name for thread in threading.enumerate()}


def test_one_that_was_never_started_can_be_stopped() -> None:
    """A worker that did not get that far."""
    pile = Pile()
    pile.add()
    pile.paced.stop(10.0)
    assert pile.taken == []
