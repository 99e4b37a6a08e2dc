"""The producer for event loops: submit jobs, ask how they stand, wait for their results, cancel; dead letters."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import AbstractContextManager, aclosing
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from redis.exceptions import RedisError

from producer import keys
from producer.aliasing import enqueued_async, settled
from producer.async_control_link import AsyncControlLink
from producer.async_conversations import AsyncConversations
from producer.async_map_run import AsyncMapRun, wait_for_all
from producer.async_operations import AsyncOperations
from producer.async_sessions import AsyncSessions
from producer.async_source import source_of
from producer.async_standing import AsyncStanding
from producer.async_submit_run import AsyncSubmitRun
from producer.cancellation import prepare_cancel, read_cancel_reply
from producer.connection import (
    CONNECT_TIMEOUT_SECONDS,
    SOCKET_TIMEOUT_SECONDS,
    Deadline,
    asking,
    submit_trouble,
    submitting,
)
from producer.contract import GenerationRequest, GenerationResult
from producer.jobs import CancelOutcome, JobOutcome, JobStatus, Submission, SubmitOutcome, job_id_of
from producer.outcome import answer, not_ready, status_of, unwrapped
from producer.result_feed import ResultFeed
from producer.stream_feed import StreamFeed, events
from producer.stream_reading import StreamEnded, StreamEvent
from producer.submission import RESULT_SECONDS, Destination, Submittable, as_request, prepare
from producer.window import Window

Item = TypeVar("Item")


class AsyncProducer(AsyncOperations, AsyncStanding, AsyncConversations, AsyncSessions):
    """:class:`~producer.Producer` for one event loop; every method has the same meaning and errors.

    However many callers wait for results, they share one pub/sub connection. Close it (``async with``, or
    :meth:`aclose`) in the loop that used it.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        socket_timeout_seconds: float = SOCKET_TIMEOUT_SECONDS,
        job_record_seconds: int = keys.JOB_RECORD_SECONDS,
        result_expires_seconds: int = RESULT_SECONDS,
    ) -> None:
        self._url = redis_url
        self._link = AsyncControlLink(
            redis_url,
            connect_timeout_seconds=connect_timeout_seconds,
            socket_timeout_seconds=socket_timeout_seconds,
        )
        self._destination = Destination(self._link.database, job_record_seconds, result_expires_seconds)
        self._feed = ResultFeed(self._link)
        self._streams = StreamFeed(self._link)
        self._last_words = set()

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._end_last_words()
        await self._streams.close()
        await self._feed.close()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def submit(self, request: GenerationRequest | None = None, /, **fields: Any) -> Submission:  # noqa: ANN401 - pydantic checks them
        """Queue one job; see :meth:`producer.Producer.submit`.

        A conversation's turn that is cancelled while it is submitted gives up its place, and is as if not said.
        """
        asked = as_request(request, fields)
        if asked.conversation_id is not None:
            return await self._submit_turn(asked)
        job = prepare(asked)
        with submitting(self._url):
            [found] = await enqueued_async([job], self._destination, self._link.enqueue)
        return settled(found)

    async def result(self, job: str | Submission, timeout_seconds: float | None = None) -> GenerationResult:
        """Wait for a job's result; see :meth:`producer.Producer.result`."""
        job_id = job_id_of(job)
        with asking(self._url):
            if timeout_seconds != 0:
                result = unwrapped(await self._feed.outcome(job_id, timeout_seconds))
            else:
                has_record, meta = await self._link.presence(job_id)
                if (found := answer(job_id, has_record=has_record, meta=meta)) is None:
                    raise not_ready(job_id)
                result = found
        await self._note_answer(job, result)
        return result

    async def stream(
        self, job: str | Submission, *, after: str = "", timeout_seconds: float | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """Follow a job's answer while it is generated; see :meth:`producer.Producer.stream`."""
        following = events(self._streams, self._feed, job_id_of(job), after, timeout_seconds)
        async with aclosing(translated(following, partial(asking, self._url))) as told:
            async for event in told:
                if isinstance(event, StreamEnded):
                    await self._note_answer(job, event.result)
                yield event

    async def status(self, job: str | Submission) -> JobStatus:
        """Where a job stands at this moment; see :meth:`producer.Producer.status`."""
        job_id = job_id_of(job)
        with asking(self._url):
            record, meta = await self._link.record_and_result(job_id)
        return status_of(job_id, record, meta)

    async def cancel(self, job: str | Submission) -> CancelOutcome:
        """Stop a job, queued or running; see :meth:`producer.Producer.cancel`."""
        with asking(self._url):
            reply = await self._link.cancel(prepare_cancel(job, self._destination))
        return read_cancel_reply(job_id_of(job), reply)

    async def submit_many(self, requests: Iterable[Submittable] | AsyncIterable[Submittable]) -> list[SubmitOutcome]:
        """Queue any number of jobs; see :meth:`producer.Producer.submit_many`."""
        run = AsyncSubmitRun(self._link, self._destination, source_of(requests))
        try:
            await run.submit_all()
        except RedisError as error:
            raise run.batch.failure(submit_trouble(self._url, error)) from error
        return run.batch.finish()

    async def map(
        self,
        requests: Iterable[Submittable] | AsyncIterable[Submittable],
        *,
        window: int = 1000,
        in_order: bool = True,
    ) -> AsyncGenerator[JobOutcome, None]:
        """Submit every request and yield every outcome; see :meth:`producer.Producer.map`."""
        run = AsyncMapRun(self._link, self._destination, source_of(requests), Window(window, in_order=in_order))
        async with aclosing(translated(run.outcomes(), partial(submitting, self._url))) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def results(
        self, jobs: Iterable[str | Submission], timeout_seconds: float | None = None, *, in_order: bool = False
    ) -> AsyncGenerator[JobOutcome, None]:
        """Yield how each of these jobs ended; see :meth:`producer.Producer.results`."""
        window = Window.over([job_id_of(job) for job in jobs], in_order=in_order)
        waiting = wait_for_all(self._link, window, Deadline(timeout_seconds))
        async with aclosing(translated(waiting, partial(asking, self._url))) as outcomes:
            async for outcome in outcomes:
                yield outcome


async def translated(
    outcomes: AsyncGenerator[Item, None], errors: Callable[[], AbstractContextManager[None]]
) -> AsyncGenerator[Item, None]:
    """The same items, with the client library's errors in our words."""
    async with aclosing(outcomes):
        while True:
            with errors():
                outcome = await anext(outcomes, None)
            if outcome is None:
                return
            yield outcome
