"""Logging in with an operator's key, and out."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from producer.api_keys import Role, digest_of
from producer.async_client import AsyncProducer
from producer.gateway.callers import KeyRing
from producer.gateway.ui.forms import form_of
from producer.gateway.ui.rendering import page
from producer.gateway.ui.visitor import COOKIE, set_cookie, visitor_of


async def show(request: Request) -> Response:
    """The form; the page itself for who is in."""
    if visitor_of(request).is_let_in:
        return RedirectResponse(f"{request.scope['root_path']}/", HTTPStatus.SEE_OTHER)
    return _form(request, destination(request, request.query_params.get("next", "")))


async def log_in(request: Request) -> Response:
    """A session for a key of role operator: the browser has its id, which is not the one that it came with."""
    fields = await form_of(request)
    ring: KeyRing = request.app.state.keys
    fleet: AsyncProducer = request.app.state.producer
    goes_to = destination(request, fields.get("next", ""))
    digest = digest_of(fields.get("key", "").strip())
    key = await ring.key(digest)
    if key is None:
        return _form(request, goes_to, HTTPStatus.UNAUTHORIZED, "This key opens nothing here.")
    if key.role is not Role.OPERATOR:
        return _form(request, goes_to, HTTPStatus.FORBIDDEN, "This page is for keys of role operator; this is none.")
    response = RedirectResponse(goes_to, HTTPStatus.SEE_OTHER)
    set_cookie(request, response, await fleet.open_session(digest))
    return response


async def log_out(request: Request) -> Response:
    """End the session, here and in Redis."""
    await form_of(request)
    fleet: AsyncProducer = request.app.state.producer
    await fleet.close_session(visitor_of(request).cookie)
    base = request.scope["root_path"]
    response = RedirectResponse(f"{base}/login?notice=logged_out", HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE, path=base)
    return response


def destination(request: Request, wanted: str) -> str:
    """Where to go after logging in: the page that was asked for, if it is one of ours."""
    base = f"{request.scope['root_path']}/"
    return wanted if wanted.startswith(base) and wanted.isprintable() else base


def _form(request: Request, goes_to: str, status: int = HTTPStatus.OK, problem: str = "") -> Response:
    return page(request, "login.html", status=status, goes_to=goes_to, problem=problem)
