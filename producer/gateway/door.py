"""What stands around the app: how much comes in at once, for how long, and from which web pages."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.gateway.access_log import REQUEST_ID, AccessLog
from producer.gateway.bulk import BULK_PATH
from producer.gateway.callers import OPEN_PATHS, is_of_ui
from producer.gateway.errors import answer, body
from producer.gateway.metering import RATE_LIMIT_HEADERS, SHOULD_RETRY
from producer.gateway.options import GatewayOptions

EXPOSED_HEADERS: Final = ("Location", "Retry-After", SHOULD_RETRY, REQUEST_ID, *RATE_LIMIT_HEADERS)
"""What a web page may read of an answer: OpenAI's client goes by some of them there too."""
RESERVED_PLACES: Final = 64
"""Beyond the most concurrent requests: of operators and cancellations, and as many of probes."""


def door(app: ASGIApp, options: GatewayOptions) -> ASGIApp:
    """The app as the server calls it."""
    app = BodyDeadline(app, options.read_timeout_seconds)
    app = Crowd(app, options.max_concurrent_requests)
    if options.origins:
        # Around the keys: browsers send none when they ask whether they may ask.
        app = CORSMiddleware(
            app,
            allow_origins=options.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
    return AccessLog(app)


@dataclass
class Places:
    """So many requests at a time."""

    most: int
    taken: int = 0

    @property
    def is_full(self) -> bool:
        """Whether all are taken."""
        return self.taken >= self.most


class Crowd:
    """Answers so many requests at a time; who comes then is told so at once.

    Probes have places of their own. Operators' pages and whoever takes something away have a few more than the others:
    a gateway that is full must not keep out who makes room.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._places, self._reserve, self._probes = Places(most), Places(RESERVED_PLACES), Places(RESERVED_PLACES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        places = self._places_for(scope)
        if places.is_full:
            message = f"{self._places.most:,} requests are being answered, as many as this gateway takes at a time"
            status = int(HTTPStatus.SERVICE_UNAVAILABLE)
            await answer(status, body(status, message, code="overloaded"))(scope, receive, send)
            return
        places.taken += 1
        try:
            await self._app(scope, receive, send)
        finally:
            places.taken -= 1

    def _places_for(self, scope: Scope) -> Places:
        if scope["path"] in OPEN_PATHS:
            return self._probes
        makes_room = scope["method"] == "DELETE" or is_of_ui(scope["path"])
        return self._reserve if self._places.is_full and makes_room else self._places


class BodyDeadline:
    """Refuses a request whose body takes longer than so many seconds to arrive, and closes its connection.

    Many jobs in one body may take as long as they like, as long as something of them arrives.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._seconds
        is_whole = is_late = False

        async def in_time() -> Message:
            nonlocal is_whole, is_late, give_up_at
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(give_up_at):
                    message = await receive()
            except TimeoutError:
                is_late = True
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {self._seconds:g} s"
                ) from None
            is_whole = not message.get("more_body", False)
            if scope["path"] == BULK_PATH:
                give_up_at = loop.time() + self._seconds
            return message

        async def told(message: Message) -> None:
            if is_late and message["type"] == "http.response.start":
                # What is still to come of the body would be taken for another request.
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, in_time, told)
