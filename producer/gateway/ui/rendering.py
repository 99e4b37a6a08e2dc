"""Pages from templates: everything that is shown is escaped, whoever wrote it."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from producer.errors import FleetError, NotReplayable, UnknownDeadLetter
from producer.gateway.errors import NotAllowed, of_fleet
from producer.gateway.ui.visitor import Visitor, set_cookie

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
BRIEF_SECONDS: Final = 10
"""Shorter times are told with fractions."""

NOTICES: Final = {
    "cancelled": "The job is cancelled.",
    "already_cancelled": "The job was cancelled before.",
    "ended": "The job had ended before; that stays.",
    "replayed": "The dead letter's message is queued again.",
    "purged": "The dead letter is removed.",
    "logged_out": "You are logged out.",
}


def moment(seconds: float) -> str:
    """Seconds since the epoch, for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine_moment(seconds: float) -> str:
    """The same for ``<time datetime>``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """How long, in its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < BRIEF_SECONDS:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def number(value: float) -> str:
    """With its thousands apart; fractions of small ones."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def query(**values: str | None) -> str:
    """The query of an address, without what has no value."""
    given = {name: value for name, value in values.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("producer.gateway.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=moment, machine_moment=machine_moment, duration=duration, number=number)
    environment.globals["query"] = query
    return environment


ENVIRONMENT: Final = _environment()


def page(request: Request, template: str, *, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:  # noqa: ANN401 - the template's
    """The response."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)  # none where the door refused at once
    text = ENVIRONMENT.get_template(template).render(
        values
        | {
            "base": request.scope["root_path"],
            "here": request.scope["path"],
            "is_let_in": visitor is not None and visitor.is_let_in,
            "key_name": visitor.key.name if visitor is not None and visitor.key else None,
            "form_token": visitor.form_token if visitor is not None else "",
            "notice": NOTICES.get(request.query_params.get("notice", "")),
        }
    )
    response = HTMLResponse(text, status)
    if visitor is not None and not visitor.has_cookie:
        set_cookie(request, response, visitor.cookie)  # its forms' token belongs to it
    return response


def error_page(request: Request, error: Exception) -> HTMLResponse:
    """The page that says what was wrong."""
    status, message = status_and_message(error)
    return page(request, "error.html", status=status, message=message, phrase=HTTPStatus(status).phrase)


def status_and_message(error: Exception) -> tuple[int, str]:
    """Of an error that a request ended with."""
    match error:
        case NotAllowed():
            return error.status, str(error)
        case UnknownDeadLetter():
            return HTTPStatus.NOT_FOUND, f"There is no dead letter {error.letter_id!r}: it was replayed or purged."
        case NotReplayable():
            return HTTPStatus.CONFLICT, str(error)
        case FleetError():
            status, body = of_fleet(error)
            return status, str(body["error"]["message"])
    return HTTPStatus.INTERNAL_SERVER_ERROR, f"an error in the gateway: {type(error).__name__}"
