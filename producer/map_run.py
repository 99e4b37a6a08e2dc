"""One ``map`` in one thread: pull, submit, look, hand over."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from producer.connection import OUTAGE_SECONDS, Outage
from producer.jobs import JobOutcome
from producer.link import Link
from producer.submission import Destination, RequestLike, enqueue_run, read_replies
from producer.window import CHUNK_BYTES, CHUNK_JOBS, PULL_SECONDS, IndexedJob, PollSchedule, Window

Answer = TypeVar("Answer")


class MapRun:
    """The jobs of one ``map`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: Link, destination: Destination, requests: Iterable[RequestLike], window: Window) -> None:
        self._link = link
        self._destination = destination
        self._requests = iter(requests)
        self._window = window
        self._exhausted = False
        self._schedule = PollSchedule()
        self._outage = Outage(patience_seconds=0)

    def outcomes(self) -> Iterator[JobOutcome]:
        """Every request's outcome, each as soon as the order allows."""
        while not (self._exhausted and self._window.is_empty):
            self._fill()
            self._look()
            progress = False
            for outcome in self._window.hand_over():
                progress = True
                yield outcome
            pause_seconds = self._schedule.pause_seconds(progress=progress)
            if not progress and (self._exhausted or not self._window.room):
                time.sleep(pause_seconds)

    def _fill(self) -> None:
        chunk = self._pull()
        if chunk:
            jobs = [job.prepared for job in chunk]
            reply = self._outlast(partial(self._link.enqueue, enqueue_run(jobs, self._destination)))
            self._window.submitted(chunk, read_replies(jobs, reply))

    def _pull(self) -> list[IndexedJob]:
        chunk: list[IndexedJob] = []
        size_bytes, stop_at = 0, time.monotonic() + PULL_SECONDS
        for _ in range(min(self._window.room, CHUNK_JOBS)):
            try:
                request = next(self._requests)
            except StopIteration:
                self._exhausted = True
                break
            if (job := self._window.take(request)) is not None:
                chunk.append(job)
                size_bytes += job.prepared.size_bytes
            if size_bytes > CHUNK_BYTES or time.monotonic() > stop_at:
                break
        return chunk

    def _look(self) -> None:
        presence_is_due = self._schedule.presence_is_due()
        for job_ids in self._window.waiting():
            if presence_is_due:
                self._window.present(job_ids, *self._outlast(partial(self._link.presence, job_ids)))
            else:
                self._window.seen(job_ids, self._outlast(partial(self._link.results, job_ids)))

    def _outlast(self, ask: Callable[[], Answer]) -> Answer:
        """What Redis answers; once it has answered, an outage is waited out, for a while."""
        while True:
            try:
                answer = ask()
            except RedisError as error:
                time.sleep(self._outage.pause_seconds(error))
            else:
                self._outage = Outage(patience_seconds=OUTAGE_SECONDS)
                return answer
