"""Waiting for many results in one event loop: one pub/sub connection for all callers, however many wait."""

import asyncio
from time import monotonic

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from producer import keys
from producer.async_link import AsyncLink
from producer.connection import FALLBACK_SECONDS, Outage
from producer.outcome import is_settled
from producer.tasks import end
from producer.watch import POLL_KEYS

Sighting = tuple[bool, bytes | None]
"""Whether a job has a record, and its stored result."""


class ResultFeed:
    """Tells each waiting caller when its job is settled: by publication, and by a look once a second for all.

    One task does all the work; it starts with the first caller and lives until :meth:`close`.
    """

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._waiters: dict[str, set[asyncio.Future[Sighting]]] = {}
        self._subscribed: set[str] = set()
        self._heard: set[str] = set()
        self._changed = asyncio.Event()
        self._sweep_due_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.trouble: RedisError | None = None
        """Why Redis does not answer at this moment; None while it does."""

    async def settled(self, job_id: str, timeout_seconds: float | None) -> Sighting | None:
        """What is stored of the job once it is settled; None when the timeout runs out first.

        Raises:
            RedisError: Redis refuses for good, or the feed was closed. While it is merely away, the wait goes on.
        """
        task = self._running()
        future: asyncio.Future[Sighting] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        if job_id in self._subscribed:
            self._heard.add(job_id)
        self._changed.set()
        try:
            await asyncio.wait((future, task), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave(job_id, future)
        if future.done():
            return future.result()
        if task.cancelled():
            raise RedisConnectionError("the producer was closed while its callers waited")
        if task.done():
            task.result()
        return None

    async def close(self) -> None:
        """Stop listening; idempotent."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    def _running(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="fleet-result-feed")
        return self._task

    def _leave(self, job_id: str, future: asyncio.Future[Sighting]) -> None:
        waiters = self._waiters[job_id]
        waiters.discard(future)
        if not waiters:
            del self._waiters[job_id]
            self._changed.set()

    async def _run(self) -> None:
        outage = Outage(patience_seconds=None)
        while True:
            try:
                await self._listen(outage)
            except RedisError as error:
                self.trouble = error
                await asyncio.sleep(outage.pause_seconds(error))

    async def _listen(self, outage: Outage) -> None:
        """Serve the callers on one connection, until it breaks."""
        self._subscribed.clear()
        pubsub = self._link.subscription()
        reader: asyncio.Task[None] | None = None
        try:
            while True:
                await self._subscribe(pubsub)
                reader = reader or self._start_reader(pubsub)
                due = await self._reasons_to_look()
                if reader is not None and reader.done():
                    reader.result()
                if due:
                    await self._look(sorted(due))
                    self.trouble = None
                    outage.over()
        finally:
            if reader is not None:
                await end(reader)
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's hints have a gap

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Listen for exactly the jobs that somebody waits for."""
        new, gone = self._waiters.keys() - self._subscribed, self._subscribed - self._waiters.keys()
        self._subscribed |= new
        if new:
            await pubsub.subscribe(*(keys.result(job_id) for job_id in new))
        self._subscribed -= gone
        if gone:
            await pubsub.unsubscribe(*(keys.result(job_id) for job_id in gone))

    def _start_reader(self, pubsub: PubSub) -> asyncio.Task[None] | None:
        if not self._subscribed:
            return None
        reader = asyncio.create_task(self._read(pubsub), name="fleet-result-reader")
        reader.add_done_callback(lambda _: self._changed.set())
        return reader

    async def _read(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=None)
            # The confirmation of a subscription is news too: what was stored before it was never published to us.
            if message is not None and message["type"] in {"subscribe", "message"}:
                self._heard.add(keys.job_id_of_result(message["channel"].decode()))
                self._changed.set()

    async def _reasons_to_look(self) -> set[str]:
        """Wait for news: the jobs that were heard of, or from time to time all that are waited for."""
        seconds = max(0.0, self._sweep_due_at - monotonic()) if self._waiters else None
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            self._sweep_due_at = monotonic() + FALLBACK_SECONDS
            return set(self._waiters)
        self._changed.clear()
        heard, self._heard = self._heard, set()
        return heard & self._waiters.keys()

    async def _look(self, job_ids: list[str]) -> None:
        for start in range(0, len(job_ids), POLL_KEYS):
            some = job_ids[start : start + POLL_KEYS]
            for job_id, has_record, meta in zip(some, *await self._link.presence(some), strict=True):
                if is_settled(has_record=has_record, meta=meta):
                    self._tell(job_id, (has_record, meta))

    def _tell(self, job_id: str, sighting: Sighting) -> None:
        for future in self._waiters.get(job_id, ()):
            if not future.done():
                future.set_result(sighting)
