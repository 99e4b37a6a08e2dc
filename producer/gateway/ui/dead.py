"""Dead letters: listed, inspected, replayed, purged."""

from http import HTTPStatus
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from producer.async_client import AsyncProducer
from producer.errors import UnknownDeadLetter
from producer.gateway.ui.forms import form_of
from producer.gateway.ui.rendering import page, query

PAGE_LETTERS: Final = 25
MOST_SHOWN: Final = 100_000
"""Characters of a message."""


async def show_list(request: Request) -> Response:
    """A page of them, the latest first."""
    fleet: AsyncProducer = request.app.state.producer
    model = request.query_params.get("model") or None
    digits = request.query_params.get("offset", "")
    offset = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < len(str(10**9)) else 0
    # One more than is shown tells whether there are more.
    letters = await fleet.dead_letters(PAGE_LETTERS + 1, offset, model)
    return page(
        request,
        "dead.html",
        letters=letters[:PAGE_LETTERS],
        model=model,
        first=offset + 1,
        earlier=str(max(0, offset - PAGE_LETTERS)) if offset else None,
        later=str(offset + PAGE_LETTERS) if len(letters) > PAGE_LETTERS else None,
    )


async def show_letter(request: Request) -> Response:
    """One of them, with every attempt and its message."""
    fleet: AsyncProducer = request.app.state.producer
    letter = await fleet.dead_letter(request.query_params.get("id", ""))
    shown = readable_message(letter.message)
    return page(request, "letter.html", letter=letter, message=shown[:MOST_SHOWN], hidden=len(shown[MOST_SHOWN:]))


async def replay(request: Request) -> Response:
    """Queue its message again, and go on to its job."""
    fields = await form_of(request)
    fleet: AsyncProducer = request.app.state.producer
    job_id = await fleet.replay_dead_letter(fields.get("id", ""))
    where = query(id=job_id, notice="replayed")
    return RedirectResponse(f"{request.scope['root_path']}/job{where}", HTTPStatus.SEE_OTHER)


async def purge(request: Request) -> Response:
    """Remove it for good."""
    letter_id = (await form_of(request)).get("id", "")
    fleet: AsyncProducer = request.app.state.producer
    if not await fleet.purge_dead_letters([letter_id]):
        raise UnknownDeadLetter(letter_id)
    return RedirectResponse(f"{request.scope['root_path']}/dead?notice=purged", HTTPStatus.SEE_OTHER)


def readable_message(message: bytes) -> str:
    """The request in a message, as JSON in lines; the message itself where it holds none."""
    try:
        body = orjson.loads(orjson.loads(message)["body"])
        return orjson.dumps(body[0][0], option=orjson.OPT_INDENT_2).decode()
    except (ValueError, TypeError, LookupError):
        return message.decode(errors="backslashreplace")
