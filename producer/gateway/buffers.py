"""What the gateway holds in memory for its callers, all together: bodies of requests, and what is sent to them."""

import asyncio
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.contract import MAX_MESSAGE_BYTES
from producer.gateway.bulk import BULK_PATH
from producer.gateway.errors import Overloaded, answer, body
from producer.gateway.waiting import TAKING_SECONDS

BULK_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""Of a bulk request, which is read as it comes: the line that is being read, and the jobs that are on their way."""
SEND_BYTES: Final = 64 * 1024
"""Given to the connection at once; it holds about as much, and then waits for its client."""


class Buffers:
    """How much is held, and how much may be; one for the gateway's process."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more may be held; nothing always may."""
        return size_bytes == 0 or self.held_bytes + size_bytes <= self.most_bytes

    @property
    def refusal(self) -> str:
        """What to say where there is no room."""
        return f"requests of {self.held_bytes:,} bytes are being answered, and this gateway holds {self.most_bytes:,}"


class Bounded:
    """Refuses requests whose bodies there is no room for, and sends no faster than clients take.

    A body counts from before it is read, by what its head says, until its request is answered: what is made of it is
    there as long. Answers count while they are sent, and are never refused: their requests were taken.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held = _Held(scope["app"].state.buffers, receive, send)
        size_bytes = _announced_bytes(scope)
        if not held.buffers.has_room(size_bytes):
            content = body(HTTPStatus.SERVICE_UNAVAILABLE, held.buffers.refusal, code="overloaded")
            await answer(HTTPStatus.SERVICE_UNAVAILABLE, content)(scope, receive, send)
            return
        held.hold(size_bytes)
        held.counts_as_read = scope["path"] != BULK_PATH
        try:
            await self._app(scope, held.receive, held.send)
        finally:
            held.hold(-held.size_bytes)


class _Held:
    """What one request holds."""

    def __init__(self, buffers: Buffers, receive: Receive, send: Send) -> None:
        self.buffers = buffers
        self.size_bytes = 0
        self.counts_as_read = True
        """Beyond what was announced."""
        self._read_bytes = 0
        self._is_gone = False
        self._receive = receive
        self._send = send

    def hold(self, size_bytes: int) -> None:
        """So much more; less where it is negative."""
        self.size_bytes += size_bytes
        self.buffers.held_bytes += size_bytes

    async def receive(self) -> Message:
        """ASGI's, counted: a body may come without its length.

        Raises:
            Overloaded: there is no room for it.
        """
        message = await self._receive()
        self._read_bytes += len(message.get("body", b""))
        if self.counts_as_read and (more_bytes := self._read_bytes - self.size_bytes) > 0:
            if not self.buffers.has_room(more_bytes):
                raise Overloaded(self.buffers.refusal)
            self.hold(more_bytes)
        return message

    async def send(self, message: Message) -> None:
        """ASGI's, counted; what is large goes a part at a time. Who takes no part for a while hears no more."""
        content: bytes = message.get("body", b"")
        self.buffers.held_bytes += len(content)
        try:
            if len(content) <= SEND_BYTES:
                await self._send(message)
            elif not self._is_gone:
                await self._send_parts(content, message.get("more_body", False))
        finally:
            self.buffers.held_bytes -= len(content)

    async def _send_parts(self, content: bytes, more: bool) -> None:  # noqa: FBT001 - ASGI's
        try:
            for first in range(0, len(content), SEND_BYTES):
                part, is_last = content[first : first + SEND_BYTES], first + SEND_BYTES >= len(content)
                async with asyncio.timeout(TAKING_SECONDS):
                    await self._send({"type": "http.response.body", "body": part, "more_body": more or not is_last})
        except TimeoutError:
            self._is_gone = True  # the server closes the connection of an answer that does not end


def _announced_bytes(scope: Scope) -> int:
    """What the request's body will hold, as far as its head says."""
    if scope["path"] == BULK_PATH:
        return BULK_BYTES
    said = Headers(scope=scope).get("content-length", "")
    return int(said) if said.isdigit() and int(said) <= MAX_MESSAGE_BYTES else 0  # a larger one is not read at all
