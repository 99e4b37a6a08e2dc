"""Forms that a page of ours sent."""

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from producer.gateway.errors import NotAllowed
from producer.gateway.ui.visitor import visitor_of

MOST_FIELDS: Final = 20
TOKEN_FIELD: Final = "form_token"  # noqa: S105 - the field's name
FORM_TYPE: Final = "application/x-www-form-urlencoded"


async def form_of(request: Request) -> Mapping[str, str]:
    """Its fields; lines end as they do everywhere but in forms.

    Raises:
        NotAllowed: it is no form, or not one that we gave to this browser.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise NotAllowed(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "no_form", f"send a form: {FORM_TYPE}")
    try:
        text = (await request.body()).decode()
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:  # too many fields, or no UTF-8
        raise NotAllowed(HTTPStatus.BAD_REQUEST, "bad_form", f"the form can not be read: {error}") from error
    given = fields.pop(TOKEN_FIELD, "")
    if not hmac.compare_digest(given.encode(), visitor_of(request).form_token.encode()):
        raise NotAllowed(
            HTTPStatus.FORBIDDEN,
            "wrong_form_token",
            "this form is not of this session: go back, reload the page, retry",
        )
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}
