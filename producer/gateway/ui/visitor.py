"""The browser that a request came from, and its cookie."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from producer.api_keys import ApiKey

COOKIE: Final = "fleet-ui"
FORM_TOKEN_PURPOSE: Final = b"fleet-ui form token"


@dataclass(frozen=True, slots=True)
class Visitor:
    """The browser that a request came from."""

    cookie: str
    """What its cookie has, or will have: the session's id, or just a random text where there is no session."""
    has_cookie: bool
    key: ApiKey | None
    """The operator's, whose session it is; None without a session."""
    needs_key: bool

    @property
    def form_token(self) -> str:
        """What its forms have to send: other pages can not read it, nor make it from anything that they can."""
        return hmac.digest(self.cookie.encode(), FORM_TOKEN_PURPOSE, hashlib.sha256).hex()

    @property
    def is_let_in(self) -> bool:
        """Whether it sees more than the login page."""
        return self.key is not None or not self.needs_key


def visitor_of(request: Request) -> Visitor:
    """Of this request."""
    visitor: Visitor = request.state.visitor
    return visitor


def is_secure(request: Request) -> bool:
    """Whether the browser came over TLS, be it to a proxy in front of us."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def set_cookie(request: Request, response: Response, value: str) -> None:
    """Let the browser have this cookie until it is closed; no script can read it."""
    response.set_cookie(
        COOKIE,
        value,
        path=request.scope["root_path"],
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
