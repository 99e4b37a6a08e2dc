"""Following many answers in one event loop: one look at all of them at a time, and nothing held for a slow reader."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from producer.async_link import AsyncLink
from producer.connection import Outage
from producer.outcome import unwrapped
from producer.result_feed import ResultFeed
from producer.stream_entries import FIRST_ID, MOST_ENTRIES
from producer.stream_reading import StreamEvent, StreamReading
from producer.tasks import end

FEW_READERS: Final = 64
"""So many wait inside Redis; more look again after a pause, since each answer would cost a look at all."""
BLOCK_MS: Final = 20
"""A reader that comes while others wait inside Redis waits so long for its first look at most."""
PAUSE_SECONDS: Final = 0.02
JOBS_IN_A_LOOK: Final = 256

Entries = tuple[str, list[bytes]]


class StreamFeed:
    """Gives each reader the next entries of its job when it asks for them; a reader that is busy is not looked for.

    One task does the looking; it starts with the first reader and lives until :meth:`close`.
    """

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._readers: dict[str, dict[asyncio.Future[Entries], str]] = {}
        """By job who waits, and for what comes after which id."""
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def next_entries(self, job_id: str, after: str) -> Entries:
        """The entries after this id, once there are some, and the last one's id.

        Raises:
            RedisError: Redis refuses for good, or the feed was closed.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="fleet-stream-feed")
            self._task.add_done_callback(self._ended)
        future: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()
        waiting = self._readers.setdefault(job_id, {})
        waiting[future] = after
        self._wanted.set()
        try:
            return await future
        finally:
            waiting.pop(future, None)
            if not waiting and self._readers.get(job_id) is waiting:
                del self._readers[job_id]

    async def rest(self, job_id: str, after: str) -> Entries:
        """All entries after this id that are there now.

        Raises:
            RedisError: Redis is away, or refuses.
        """
        last, entries = after, list[bytes]()
        while found := await self._link.said({job_id: last}, None):
            last, more = found[job_id]
            entries += more
        return last, entries

    async def close(self) -> None:
        """Stop looking; idempotent."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for waiting in self._readers.values():
            for future in waiting:
                if not future.done():
                    closed = RedisConnectionError("the producer was closed while its readers waited")
                    future.set_exception(closed if error is None else copy.copy(error))

    async def _run(self) -> None:
        outage = Outage(patience_seconds=None)
        while True:
            self._wanted.clear()
            if not self._readers:
                await self._wanted.wait()
            try:
                await self._look()
                outage.over()
            except RedisError as error:
                await asyncio.sleep(outage.pause_seconds(error))

    async def _look(self) -> None:
        are_few = len(self._readers) <= FEW_READERS
        for some in self._slices():
            found = await self._link.said(some, BLOCK_MS if are_few else None)
            for job_id, entries in found.items():
                self._tell(job_id, some[job_id], entries)
        # Readers take their turn before the next look, or it would be for those alone who got nothing.
        await asyncio.sleep(0 if are_few else PAUSE_SECONDS)

    def _slices(self) -> Iterator[dict[str, str]]:
        jobs = list(self._readers)
        for start in range(0, len(jobs), JOBS_IN_A_LOOK):
            waiting = {job_id: self._readers.get(job_id) for job_id in jobs[start : start + JOBS_IN_A_LOOK]}
            # Readers of one job may be at different places: the one that is furthest behind is served first.
            if some := {job_id: min(after.values(), key=_order) for job_id, after in waiting.items() if after}:
                yield some

    def _tell(self, job_id: str, after: str, entries: Entries) -> None:
        for future, place in self._readers.get(job_id, {}).items():
            if place == after and not future.done():
                future.set_result(entries)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


async def events(
    feed: StreamFeed, results: ResultFeed, job_id: str, after: str, timeout_seconds: float | None
) -> AsyncGenerator[StreamEvent, None]:
    """What the job says from the position ``after`` on, until it has ended.

    Raises:
        InvalidRequest, InferenceFailed, ResultExpired, ResultNotReady: as :func:`producer.stream_wait.events`.
        RedisError: Redis was away when the timeout ran out, or refuses for good.
    """
    reading, last = StreamReading(after), FIRST_ID
    outcome = asyncio.create_task(results.outcome(job_id, timeout_seconds))
    more: asyncio.Task[Entries] | None = None
    try:
        while True:
            more = more or asyncio.create_task(feed.next_entries(job_id, last))
            await asyncio.wait({outcome, more}, return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                found, more = more.result(), None
                if last == FIRST_ID:
                    try:
                        found = await _all_stored(feed, job_id, found)
                    except RedisError:
                        continue  # from the beginning again: the feed waits until Redis is back, or says that it is not
                last, entries = found
                for event in reading.entries(entries):
                    yield event
            elif outcome.done():
                result = unwrapped(outcome.result())
                _, entries = await feed.rest(job_id, last)
                for event in (*reading.entries(entries), *reading.end(result)):
                    yield event
                return
    finally:
        await end(outcome, *([more] if more else []))


async def _all_stored(feed: StreamFeed, job_id: str, first: Entries) -> Entries:
    """These and all that are stored behind them: only the last tell which attempt counts."""
    last, entries = first
    if len(entries) < MOST_ENTRIES:
        return first
    last, more = await feed.rest(job_id, last)
    return last, entries + more
