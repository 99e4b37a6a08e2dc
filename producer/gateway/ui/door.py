"""Who may see the operator's page: a browser with a session of an operator's key, or anybody on this very machine."""

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.api_keys import Role
from producer.async_client import AsyncProducer
from producer.async_sessions import new_session_id
from producer.errors import FleetError
from producer.gateway.callers import KeyRing, check_host
from producer.gateway.errors import NotAllowed
from producer.gateway.ui.rendering import error_page
from producer.gateway.ui.visitor import COOKIE, Visitor

OPEN_PATHS: Final = frozenset({"/login"})
STATIC_PREFIX: Final = "/static/"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it browsers send no Origin with our own forms either, and we look at that.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Door:
    """Finds out who calls, before anything else of a request is looked at; sets the headers of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        refused = await self._refusal(request)
        if refused is not None:
            await refused(scope, receive, sent)
            return
        await self._app(scope, receive, sent)

    async def _refusal(self, request: Request) -> Response | None:
        """The answer to who is not let in; None for who is, with the visitor in the request's state."""
        try:
            ring: KeyRing = request.app.state.keys
            check_origin(request, needs_key=ring.is_asked_for)
            request.state.visitor = visitor = await _visitor(request, ring)
        except (NotAllowed, FleetError) as error:
            return error_page(request, error)
        path = request.scope["path"].removeprefix(request.scope["root_path"])
        if visitor.is_let_in or path in OPEN_PATHS or path.startswith(STATIC_PREFIX):
            return None
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        goes_on = f"?next={quote(wanted, safe='')}" if request.method == "GET" else ""
        return RedirectResponse(f"{request.scope['root_path']}/login{goes_on}", HTTPStatus.SEE_OTHER)


async def _visitor(request: HTTPConnection, ring: KeyRing) -> Visitor:
    cookie = request.cookies.get(COOKIE, "")
    key = None
    if cookie and ring.is_asked_for:
        fleet: AsyncProducer = request.app.state.producer
        digest = await fleet.session_key(cookie)
        key = await ring.key(digest) if digest else None
    if key is not None and key.role is not Role.OPERATOR:
        key = None
    return Visitor(cookie or new_session_id(), bool(cookie), key, needs_key=ring.is_asked_for)


def check_origin(request: HTTPConnection, *, needs_key: bool) -> None:
    """Let no other page act for the one who looks at it.

    Raises:
        NotAllowed: the request is a form of another page; or it is for a name that is not this machine's although
            anybody may come in, which is how another page reads ours (DNS rebinding).
    """
    headers = request.headers
    if not needs_key:
        check_host(headers)
    if request.scope["method"] not in {"GET", "HEAD"} and not _is_same_origin(headers):
        raise NotAllowed(
            HTTPStatus.FORBIDDEN,
            "wrong_origin",
            "this form was not sent from this page; a proxy in front of it has to pass on the header Host",
        )


def _is_same_origin(headers: Headers) -> bool:
    # Browsers send the first over TLS and to this machine, the second with every form; no page can change either.
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    _, separator, origin = headers.get("origin", "").partition("://")
    return bool(separator) and origin == headers.get("host")
