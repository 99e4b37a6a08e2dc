"""One ``map`` or ``results`` in one thread: pull, submit, look, hand over."""

import time
from collections.abc import Iterable, Iterator
from functools import partial

from producer.aliasing import enqueued
from producer.chunk import Chunk
from producer.connection import Deadline
from producer.jobs import JobOutcome
from producer.link import Link
from producer.outcome import some_not_ready
from producer.polling import Polling
from producer.script import ScriptRun
from producer.submission import Destination, Submittable
from producer.watch import PollSchedule
from producer.window import Window


class MapRun:
    """The jobs of one ``map`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: Link, destination: Destination, requests: Iterable[Submittable], window: Window) -> None:
        self._link = link
        self._destination = destination
        self._requests = iter(requests)
        self._window = window
        self._exhausted = False
        self._schedule = PollSchedule()
        self._polling = Polling(link)

    def outcomes(self) -> Iterator[JobOutcome]:
        """Every request's outcome, each as soon as the order allows."""
        while not (self._exhausted and self._window.is_empty):
            self._fill()
            self._polling.look(self._window, self._schedule)
            progress = False
            for outcome in self._window.hand_over():
                progress = True
                yield outcome
            pause_seconds = self._schedule.pause_seconds(progress=progress, waiting_jobs=len(self._window.watch))
            if (self._exhausted or not self._window.wants_more) and not self._window.is_empty:
                time.sleep(pause_seconds)

    def _fill(self) -> None:
        chunk = self._window.start_chunk()
        if self._window.wants_more:
            self._pull(chunk)
        if chunk.jobs:
            found = enqueued(chunk.prepared, self._destination, self._enqueue)
            self._window.submitted(chunk.jobs, found)

    def _enqueue(self, run: ScriptRun) -> bytes:
        return self._polling.outlast(partial(self._link.enqueue, run))

    def _pull(self, chunk: Chunk) -> None:
        while not self._exhausted and self._window.room and chunk.seconds_left:
            try:
                request = next(self._requests)
            except StopIteration:
                self._exhausted = True
            else:
                self._window.take(request, chunk)


def wait_for_all(link: Link, window: Window, deadline: Deadline) -> Iterator[JobOutcome]:
    """The outcome of every job in the window, each as soon as the order allows.

    Raises:
        ResultNotReady: the deadline passed before all of them had ended.
        RedisError: Redis was away when the deadline passed, or refuses for good.
    """
    schedule = PollSchedule(presence_seconds=0)
    polling = Polling(link, patience_seconds=None, deadline=deadline)
    total = window.open_jobs
    while True:
        polling.look(window, schedule)
        progress = False
        for outcome in window.hand_over():
            progress = True
            yield outcome
        if window.is_empty:
            return
        if deadline.has_passed:
            raise some_not_ready(len(window.watch), total)
        pause_seconds = schedule.pause_seconds(progress=progress, waiting_jobs=len(window.watch))
        time.sleep(deadline.remaining(pause_seconds))
