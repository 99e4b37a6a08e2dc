"""A thread that does now and then, for many at once, what would cost too much for each alone."""

import threading
from collections.abc import Callable


class Paced:
    """Calls ``act`` on a thread of its own after :meth:`notify`, at most once in ``pause_seconds``.

    ``act`` must not raise: what it cannot do now it leaves for the next call. With ``acts_first`` it pauses afterwards
    and not before: what comes alone is not late.
    """

    def __init__(self, name: str, pause_seconds: float, act: Callable[[], None], *, acts_first: bool = False) -> None:
        self._acts_first = acts_first
        self._pause_seconds = pause_seconds
        self._act = act
        self._is_due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def notify(self) -> None:
        """There is something to do; any thread, returns at once."""
        if not self._is_due.is_set():  # most calls find it set, and this is cheaper than setting it again
            self._is_due.set()

    def stop(self, timeout_seconds: float) -> None:
        """Act once more and end the thread."""
        self._stopping.set()
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._is_due.wait()
            if not self._acts_first:
                self._stopping.wait(self._pause_seconds)  # for company
            self._is_due.clear()  # before it looks: what comes after that look is for the next turn
            self._act()
            if self._acts_first:
                self._stopping.wait(self._pause_seconds)
        self._act()
