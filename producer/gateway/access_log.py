"""A request's id, and a line in the log about each; never a prompt, a key, or what stands behind a path's ``?``."""

import logging
import re
import time
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.flow import escaped_tenant

REQUEST_ID: Final = "X-Request-Id"
LOGGER: Final = logging.getLogger("fleet.gateway.access")
LONGEST_PATH: Final = 256
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")


def request_id_of(given: str) -> str:
    """The id that the client gave, if it can stand in a log and a header as it is; otherwise a fresh one."""
    return given if _SANE_ID.fullmatch(given) else uuid4().hex


class AccessLog:
    """Around everything else, so that errors have an id and a line too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope).get(REQUEST_ID, ""))
        state = scope.setdefault("state", {})
        status, begun_at = int(HTTPStatus.INTERNAL_SERVER_ERROR), time.monotonic()

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            if LOGGER.isEnabledFor(logging.INFO):
                facts = {
                    "method": scope["method"],
                    "path": _path(scope),
                    "status": status,
                    "duration_seconds": round(time.monotonic() - begun_at, 3),
                }
                sentence = "%(method)s %(path)s %(status)d %(duration_seconds).3fs"
                ids = {"request_id": request_id} | _who(state)
                LOGGER.info(sentence, facts, extra={"action": "request_answered", **facts, **ids})


def _path(scope: Scope) -> str:
    # As it was sent, escapes and all: what they stand for could be a line of its own.
    path = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return str(path[:LONGEST_PATH], "ascii", "backslashreplace")


def _who(state: dict[str, Any]) -> dict[str, str]:
    key = getattr(state.get("caller"), "key", None)
    tenant = None if key is None or key.tenant is None else escaped_tenant(key.tenant)
    facts = {"key_id": getattr(key, "key_id", None), "tenant": tenant, "job_id": state.get("job_id")}
    return {name: value for name, value in facts.items() if value is not None}
