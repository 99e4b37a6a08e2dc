"""Somebody waits at the other end of an HTTP connection; when they leave, nobody works for them any more."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from producer.async_client import AsyncProducer
from producer.contract import Failure, GenerationResult
from producer.errors import ResultExpired, ResultNotReady
from producer.jobs import Submission
from producer.outcome import Outcome
from producer.tasks import end

CLIENT_CLOSED_REQUEST: Final = 499
FIRST_EVENT_SECONDS: Final = 5.0
"""A stream that fails within this is answered with a status; later its status was sent already."""
KEEP_ALIVE_SECONDS: Final = 15.0
"""Of silence, after which a comment goes out: proxies close what says nothing."""
TAKING_SECONDS: Final = 60.0
"""A client that takes nothing for so long is gone: it would hold one of the gateway's places for ever. Four keep-alives
would have gone out meanwhile, behind as many bytes as the connection holds."""

Events = AsyncGenerator[bytes, None]
T = TypeVar("T")


class ClientGone(Exception):
    """Nobody is there to answer."""


async def awaited(request: Request, producer: AsyncProducer, job: Submission, *, is_shared: bool) -> GenerationResult:
    """The job's result; when the client leaves first or the time is up, it is cancelled, unless others may wait for it.

    Raises:
        ClientGone: it left.
        ResultNotReady: the time is up.
        FleetError: as :meth:`producer.AsyncProducer.result`.
    """
    timeout_seconds: float = request.app.state.request_timeout_seconds
    result, gone = asyncio.create_task(producer.result(job)), asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait({result, gone}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        if not is_shared:
            await producer.cancel(job)
        if gone.done():
            raise ClientGone
        became = "goes on: the same idempotency key finds it again" if is_shared else "is cancelled"
        raise ResultNotReady(f"there was no answer within {timeout_seconds:g} s, and the job {became}")
    finally:
        await end(result, gone)


async def awaited_all(
    request: Request,
    producer: AsyncProducer,
    jobs: Sequence[Submission],
    *,
    is_shared: bool,
    until_one_fails: bool = False,
) -> dict[str, Outcome]:
    """How each of these jobs ended, by its id; those that are given up are cancelled as by :func:`awaited`.

    With ``until_one_fails`` nothing is waited for behind the first that fails, and the others are given up then.

    Raises:
        ClientGone: it left.
        ResultNotReady: the time is up.
        FleetError: as :meth:`producer.AsyncProducer.results`.
    """

    async def collected() -> dict[str, Outcome]:
        ended: dict[str, Outcome] = {}
        async with aclosing(producer.results(jobs)) as outcomes:
            async for outcome in outcomes:
                if outcome.job_id is not None and (how := outcome.result or outcome.failure) is not None:
                    ended[outcome.job_id] = how
                    if until_one_fails and isinstance(how, Failure):
                        break
        return ended

    timeout_seconds: float = request.app.state.request_timeout_seconds
    collecting, gone = asyncio.create_task(collected()), asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait({collecting, gone}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if collecting.done():
            ended = collecting.result()
            await give_up(producer, [job for job in jobs if job.job_id not in ended], is_shared=is_shared)
            return ended
        await give_up(producer, jobs, is_shared=is_shared)
        if gone.done():
            raise ClientGone
        became = "go on: the same idempotency key finds them again" if is_shared else "are cancelled"
        raise ResultNotReady(f"not all answers were there within {timeout_seconds:g} s, and the jobs {became}")
    finally:
        await end(collecting, gone)


async def give_up(producer: AsyncProducer, jobs: Sequence[Submission], *, is_shared: bool) -> None:
    """Cancel jobs that nobody waits for any more, unless others may come back for them.

    Raises:
        FleetUnreachable: Redis could not be reached, or refused.
    """
    for job in () if is_shared else jobs:
        with suppress(ResultExpired):  # it has ended, and another one has its id
            await producer.cancel(job)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is given up when the client leaves.

    Raises:
        ClientGone: it left.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        await end(working, gone)


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(told: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same events, once the first is there or a few seconds have passed.

    Raises:
        FleetError: the job failed before it said anything.
    """
    first = asyncio.ensure_future(anext(told))
    try:
        await asyncio.wait({first}, timeout=FIRST_EVENT_SECONDS)
        if first.done():
            first.result()
    except BaseException:
        await end(first)
        await told.aclose()
        raise
    return _from_first(first, told)


async def _from_first(first: "asyncio.Future[T]", told: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    try:
        yield await first
        async for event in told:
            yield event
    finally:
        await end(first)
        await told.aclose()


def event(data: Any, *, name: str = "", event_id: str = "") -> bytes:  # noqa: ANN401 - JSON
    """One server-sent event (HTML standard, section 9.2)."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {name}\n" if name else "")
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"


class EventStream(Response):
    """Sends events as they come, and looks whether the client is still there while none do."""

    media_type = "text/event-stream"

    def __init__(self, events: Events, on_gone: Callable[[], Awaitable[object]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._on_gone = on_gone
        """Called when the client leaves before the last event."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send all; ASGI's entry."""
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or isinstance(sending.exception(), OSError):
                # Servers say so in either way; and who takes nothing is gone too, which is a TimeoutError.
                await self._on_gone()
            else:
                sending.result()
        finally:
            await end(sending, gone)
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": self.raw_headers})
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS)
                # No empty line after it: OpenAI's client would take that for an event, once it has seen an id.
                chunk = following.result() if following.done() else b": nothing new\n"
                if chunk is None:
                    break
                async with asyncio.timeout(TAKING_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if following.done():
                    following = asyncio.ensure_future(anext(self._events, None))
        finally:
            await end(following)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
