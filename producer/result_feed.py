"""Waiting for many results in one event loop: one connection tells all callers, however many wait.

A few hundred callers are told by publication. A crowd is not: a subscription for each job costs more than to look for
all of them at once, now and then, as :mod:`producer.watch` paces it.
"""

import asyncio
import copy
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from producer import keys
from producer.async_link import AsyncLink
from producer.connection import FALLBACK_SECONDS, Outage
from producer.errors import ResultExpired
from producer.outcome import Outcome, not_ready, read_outcome, unknown_job
from producer.tasks import end
from producer.watch import PollSchedule, Watch, sliced

MOST_SUBSCRIPTIONS: Final = 512
"""As many callers as are told by publication; more are a crowd."""


class ResultFeed:
    """Tells each waiting caller when its job is settled: by publication or by a look, and by a look now and then.

    One task does all the work; it starts with the first caller and lives until :meth:`close`.
    """

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._waiters: dict[str, set[asyncio.Future[Outcome]]] = {}
        self._watch = Watch()
        self._schedule = PollSchedule()
        self._unseen: set[str] = set()
        self._subscribed: set[str] = set()
        self._heard: set[str] = set()
        self._changed = asyncio.Event()
        self._sweep_due_at = 0.0
        self._told = False
        self._task: asyncio.Task[None] | None = None
        self._trouble: RedisError | None = None

    async def outcome(self, job_id: str, timeout_seconds: float | None) -> Outcome:
        """How the job ended, once it has.

        Raises:
            ResultExpired: nothing is known of it.
            ResultNotReady: the timeout ran out first.
            RedisError: Redis was away when the timeout ran out, refuses for good, or the feed was closed.
        """
        self._start()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._join(job_id, future)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError:
            raise self._trouble or not_ready(job_id) from None
        finally:
            self._leave(job_id, future)

    async def close(self) -> None:
        """Stop listening; idempotent."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    @property
    def _is_crowd(self) -> bool:
        return len(self._waiters) > MOST_SUBSCRIPTIONS

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="fleet-result-feed")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for future in [future for waiting in self._waiters.values() for future in waiting if not future.done()]:
            # Each caller raises an error of its own: raising one adds to its traceback.
            closed = RedisConnectionError("the producer was closed while its callers waited")
            future.set_exception(closed if error is None else copy.copy(error))

    def _join(self, job_id: str, future: asyncio.Future[Outcome]) -> None:
        if job_id not in self._waiters:
            self._waiters[job_id] = set()
            self._watch.add(job_id, 0)
        self._waiters[job_id].add(future)
        self._unseen.add(job_id)
        if job_id in self._subscribed:
            self._heard.add(job_id)
        self._changed.set()

    def _leave(self, job_id: str, future: asyncio.Future[Outcome]) -> None:
        waiters = self._waiters[job_id]
        waiters.discard(future)
        if not waiters:
            del self._waiters[job_id]
            self._watch.settle(job_id)
            self._unseen.discard(job_id)
            self._changed.set()

    async def _run(self) -> None:
        outage = Outage(patience_seconds=None)
        while True:
            try:
                await self._listen(outage)
            except RedisError as error:
                self._trouble = error
                await asyncio.sleep(outage.pause_seconds(error))

    async def _listen(self, outage: Outage) -> None:
        """Serve the callers on one connection, until it breaks."""
        self._subscribed.clear()
        self._unseen.update(self._waiters)
        pubsub = self._link.subscription()
        reader: asyncio.Task[None] | None = None
        try:
            while True:
                await self._subscribe(pubsub)
                reader = reader or self._start_reader(pubsub)
                await self._wait_for_reasons()
                if reader is not None and reader.done():
                    reader.result()
                if await self._look_around():
                    self._trouble = None
                    outage.over()
        finally:
            if reader is not None:
                await end(reader)
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's hints have a gap

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Listen for the jobs that somebody waits for; in a crowd for no more of them."""
        new = set() if self._is_crowd else self._waiters.keys() - self._subscribed
        gone = self._subscribed - self._waiters.keys()
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
            kind = None if message is None else message["type"]
            if kind == "message":
                self._tell({_job_id(message): message["data"]})
            elif kind == "subscribe":
                # News too: what was stored before it was never published to us.
                self._heard.add(_job_id(message))
                self._changed.set()

    async def _wait_for_reasons(self) -> None:
        """Until there is news; in a crowd until it is time to look."""
        if self._is_crowd:
            told, self._told = self._told, False
            await asyncio.sleep(self._schedule.pause_seconds(progress=told, waiting_jobs=len(self._waiters)))
            return
        seconds = max(0.0, self._sweep_due_at - monotonic()) if self._waiters else None
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            self._sweep_due_at = monotonic() + FALLBACK_SECONDS
            self._heard.update(self._waiters)

    async def _look_around(self) -> bool:
        """Look where there is a reason to; whether there was one."""
        self._changed.clear()
        heard, self._heard = self._heard & self._waiters.keys(), set()
        if not self._is_crowd:
            await self._look_with_records(heard)
            return bool(heard)
        if self._schedule.presence_is_due():
            self._unseen.update(self._waiters)
        unseen, self._unseen = self._unseen, set()
        await self._look_with_records(unseen)
        for job_ids in (*sliced(list(heard - unseen)), *self._watch.next_look()):
            self._tell(await self._link.results(job_ids))
        return True

    async def _look_with_records(self, job_ids: Iterable[str]) -> None:
        """Tell also the callers whose job nobody knows."""
        self._unseen.difference_update(job_ids)
        for some in sliced(sorted(job_ids)):
            if len(some) == 1:
                has_record, meta = await self._link.presence(some[0])
                without_record, stored = (set() if has_record else {some[0]}), {} if meta is None else {some[0]: meta}
            else:
                without_record = await self._link.without_record(some)
                stored = await self._link.results(some)
            self._tell(stored)
            for job_id in without_record - stored.keys():
                self._settle(job_id, None)

    def _tell(self, stored: Mapping[str, bytes]) -> None:
        for job_id, meta in stored.items():
            if job_id in self._waiters and (outcome := read_outcome(meta)) is not None:
                self._settle(job_id, outcome)

    def _settle(self, job_id: str, outcome: Outcome | None) -> None:
        """End the wait of all who wait for this job; None: nobody knows it."""
        self._told = True
        for future in self._waiters.get(job_id, ()):
            if future.done():
                continue
            if outcome is None:
                future.set_exception(ResultExpired(unknown_job(job_id)))
            else:
                future.set_result(outcome)


def _job_id(message: Mapping[str, Any]) -> str:
    return keys.job_id_of_result(message["channel"].decode())
