"""One ``map`` in an event loop: pull, submit, look, hand over."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from producer.async_link import AsyncLink
from producer.connection import OUTAGE_SECONDS, Outage
from producer.jobs import JobOutcome
from producer.submission import Destination, RequestLike, enqueue_run, read_replies
from producer.tasks import end
from producer.window import CHUNK_BYTES, CHUNK_JOBS, PULL_SECONDS, IndexedJob, PollSchedule, Window

Answer = TypeVar("Answer")


class LazySource:
    """Pulls an iterable of either kind one item at a time, and can stop waiting for an item without losing it."""

    def __init__(self, requests: Iterable[RequestLike] | AsyncIterable[RequestLike]) -> None:
        self._items = aiter(requests) if isinstance(requests, AsyncIterable) else _one_by_one(requests)
        self._next: asyncio.Future[RequestLike] | None = None
        self.exhausted = False

    async def pull(self, timeout_seconds: float) -> RequestLike | None:
        """The next item; None when there is none (any more), or not in time: then the next call goes on waiting."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._items.__anext__())
        done, _ = await asyncio.wait({self._next}, timeout=timeout_seconds)
        if not done:
            return None
        pulled, self._next = self._next, None
        try:
            return pulled.result()
        except StopAsyncIteration:
            self.exhausted = True
            return None

    async def close(self) -> None:
        """Stop waiting for an item."""
        if self._next is not None:
            await end(self._next)
            self._next = None


async def _one_by_one(requests: Iterable[RequestLike]) -> AsyncIterator[RequestLike]:
    for request in requests:
        yield request


class AsyncMapRun:
    """The jobs of one ``map`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: AsyncLink, destination: Destination, source: LazySource, window: Window) -> None:
        self._link = link
        self._destination = destination
        self._source = source
        self._window = window
        self._schedule = PollSchedule()
        self._outage = Outage(patience_seconds=0)

    async def outcomes(self) -> AsyncGenerator[JobOutcome, None]:
        """Every request's outcome, each as soon as the order allows."""
        try:
            while not (self._source.exhausted and self._window.is_empty):
                await self._fill()
                await self._look()
                progress = False
                for outcome in self._window.hand_over():
                    progress = True
                    yield outcome
                pause_seconds = self._schedule.pause_seconds(progress=progress)
                if not progress and (self._source.exhausted or not self._window.room):
                    await asyncio.sleep(pause_seconds)
        finally:
            await self._source.close()

    async def _fill(self) -> None:
        chunk = await self._pull()
        if chunk:
            jobs = [job.prepared for job in chunk]
            reply = await self._outlast(partial(self._link.enqueue, enqueue_run(jobs, self._destination)))
            self._window.submitted(chunk, read_replies(jobs, reply))

    async def _pull(self) -> list[IndexedJob]:
        chunk: list[IndexedJob] = []
        size_bytes, stop_at = 0, time.monotonic() + PULL_SECONDS
        for _ in range(min(self._window.room, CHUNK_JOBS)):
            if self._source.exhausted:
                break
            request = await self._source.pull(max(0.0, stop_at - time.monotonic()))
            if request is None:
                break
            if (job := self._window.take(request)) is not None:
                chunk.append(job)
                size_bytes += job.prepared.size_bytes
            if size_bytes > CHUNK_BYTES or time.monotonic() > stop_at:
                break
        return chunk

    async def _look(self) -> None:
        presence_is_due = self._schedule.presence_is_due()
        for job_ids in self._window.waiting():
            if presence_is_due:
                self._window.present(job_ids, *await self._outlast(partial(self._link.presence, job_ids)))
            else:
                self._window.seen(job_ids, await self._outlast(partial(self._link.results, job_ids)))

    async def _outlast(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What Redis answers; once it has answered, an outage is waited out, for a while."""
        while True:
            try:
                answer = await ask()
            except RedisError as error:
                await asyncio.sleep(self._outage.pause_seconds(error))
            else:
                self._outage = Outage(patience_seconds=OUTAGE_SECONDS)
                return answer
