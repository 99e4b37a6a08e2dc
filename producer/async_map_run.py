"""One ``map`` or ``results`` in an event loop: pull, submit, look, hand over."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from producer.aliasing import enqueued_async
from producer.async_link import AsyncLink
from producer.async_polling import AsyncPolling
from producer.async_source import Source
from producer.chunk import Chunk
from producer.connection import Deadline
from producer.jobs import JobOutcome
from producer.outcome import some_not_ready
from producer.script import ScriptRun
from producer.submission import Destination
from producer.watch import PollSchedule
from producer.window import Window


class AsyncMapRun:
    """The jobs of one ``map`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: AsyncLink, destination: Destination, source: Source, window: Window) -> None:
        self._link = link
        self._destination = destination
        self._source = source
        self._window = window
        self._schedule = PollSchedule()
        self._polling = AsyncPolling(link)

    async def outcomes(self) -> AsyncGenerator[JobOutcome, None]:
        """Every request's outcome, each as soon as the order allows."""
        try:
            while not (self._source.exhausted and self._window.is_empty):
                await self._fill()
                await self._polling.look(self._window, self._schedule)
                progress = False
                for outcome in self._window.hand_over():
                    progress = True
                    yield outcome
                pause_seconds = self._schedule.pause_seconds(progress=progress, waiting_jobs=len(self._window.watch))
                if (self._source.exhausted or not self._window.wants_more) and not self._window.is_empty:
                    await asyncio.sleep(pause_seconds)
        finally:
            await self._source.close()

    async def _fill(self) -> None:
        chunk = self._window.start_chunk()
        if self._window.wants_more:
            await self._pull(chunk)
        if chunk.jobs:
            found = await enqueued_async(chunk.prepared, self._destination, self._enqueue)
            self._window.submitted(chunk.jobs, found)

    async def _enqueue(self, run: ScriptRun) -> bytes:
        return await self._polling.outlast(partial(self._link.enqueue, run))

    async def _pull(self, chunk: Chunk) -> None:
        while not self._source.exhausted and self._window.room and (seconds := chunk.seconds_left):
            for request in await self._source.pull(seconds):
                self._window.take(request, chunk)


async def wait_for_all(link: AsyncLink, window: Window, deadline: Deadline) -> AsyncGenerator[JobOutcome, None]:
    """The outcome of every job in the window; see :func:`producer.map_run.wait_for_all`."""
    schedule = PollSchedule(presence_seconds=0)
    polling = AsyncPolling(link, patience_seconds=None, deadline=deadline)
    total = window.open_jobs
    while True:
        await polling.look(window, schedule)
        progress = False
        for outcome in window.hand_over():
            progress = True
            yield outcome
        if window.is_empty:
            return
        if deadline.has_passed:
            raise some_not_ready(len(window.watch), total)
        await asyncio.sleep(
            deadline.remaining(schedule.pause_seconds(progress=progress, waiting_jobs=len(window.watch)))
        )
