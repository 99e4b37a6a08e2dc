"""Somebody waits at the other end of an HTTP connection; when they leave, nobody works for them any more."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from producer.async_client import AsyncProducer
from producer.contract import GenerationResult
from producer.jobs import Submission
from producer.stream_reading import StreamEvent
from producer.tasks import end

CLIENT_CLOSED_REQUEST: Final = 499
FIRST_EVENT_SECONDS: Final = 5.0
"""A stream that fails within this is answered with a status; later its status was sent already."""
KEEP_ALIVE_SECONDS: Final = 15.0
"""Of silence, after which a comment goes out: proxies close what says nothing."""

Events = AsyncGenerator[bytes, None]


class ClientGone(Exception):
    """Nobody is there to answer."""


async def awaited(receive: Receive, producer: AsyncProducer, job: Submission, *, is_shared: bool) -> GenerationResult:
    """The job's result; when the client leaves first, the job is cancelled, unless others may wait for it.

    Raises:
        ClientGone: it left.
        FleetError: as :meth:`producer.AsyncProducer.result`.
    """
    result, gone = asyncio.create_task(producer.result(job)), asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        if not is_shared:
            await producer.cancel(job)
        raise ClientGone
    finally:
        await end(result)
        await end(gone)


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(told: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[StreamEvent, None]:
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


async def _from_first(
    first: "asyncio.Future[StreamEvent]", told: AsyncGenerator[StreamEvent, None]
) -> AsyncGenerator[StreamEvent, None]:
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
            if not sending.done() or isinstance(sending.exception(), OSError):  # servers say so in either way
                await self._on_gone()
            else:
                sending.result()
        finally:
            await end(sending)
            await end(gone)
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": self.raw_headers})
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS)
                chunk = following.result() if following.done() else b": nothing new\n\n"
                if chunk is None:
                    break
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if following.done():
                    following = asyncio.ensure_future(anext(self._events, None))
        finally:
            await end(following)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
