"""A form to try a prompt with."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from producer.async_client import AsyncProducer
from producer.contract import GenerationRequest, Priority
from producer.errors import FleetError, InvalidRequest
from producer.gateway.ui.forms import form_of
from producer.gateway.ui.rendering import page, query, status_and_message
from producer.sampling import MAX_OUTPUT_TOKENS
from producer.submission import as_request

KINDS: Final = {"chat": "A chat's next turn", "prompt": "Text to go on from, as it is"}
EMPTY: Final = {"kind": "chat", "text": "", "system": "", "max_tokens": "256", "temperature": "0.7"}
KEY_FIELD: Final = "key"
"""Random in each form that is shown, and again after each answer to a script: one sending is one job."""


async def show(request: Request) -> Response:
    """The form."""
    given = {name: value for name, value in request.query_params.items() if name == "model"}
    return await _form(request, EMPTY | given)


async def submit(request: Request) -> Response:
    """Queue it; a script is told where to follow the answer, and a browser goes there."""
    fields = EMPTY | dict(await form_of(request))
    wants_json = "application/json" in request.headers.get("accept", "")
    fleet: AsyncProducer = request.app.state.producer
    try:
        job = job_of(fields, request.headers.get("idempotency-key"))
        submission = await fleet.submit(job)
    except FleetError as error:
        status, message = status_and_message(error)
        if wants_json:
            return JSONResponse({"message": message}, status)
        return await _form(request, fields, status, message)
    base, where = request.scope["root_path"], query(id=submission.job_id)
    if wants_json:
        places = {"page": f"{base}/job{where}", "events": f"{base}/job/events{where}"}
        told = {"id": submission.job_id, KEY_FIELD: _fresh_key()} | places
        return JSONResponse(told, HTTPStatus.ACCEPTED)
    return RedirectResponse(f"{base}/job{where}", HTTPStatus.SEE_OTHER)


def job_of(fields: Mapping[str, str], idempotency_key: str | None = None) -> GenerationRequest:
    """The job that the form asks for; of no tenant, and in the lane of people who wait.

    Without a key of the caller's own, the form's makes one: the same form sent twice is one job.

    Raises:
        InvalidRequest: a field is empty, no number, or out of range.
    """
    if not fields["text"]:
        raise InvalidRequest("Text: write something")
    sampling = {
        "max_tokens": _number("Most tokens", fields["max_tokens"], int),
        "temperature": _number("Temperature", fields["temperature"], float),
    }
    asked: dict[str, Any] = {"prompt": fields["text"]}
    if fields["kind"] == "chat":
        system = [{"role": "system", "content": fields["system"]}] if fields["system"] else []
        asked = {"messages": [*system, {"role": "user", "content": fields["text"]}]}
    route = {"model": fields.get("model", ""), "priority": Priority.INTERACTIVE, "stream": True}
    key = {"idempotency_key": _form_key(fields) if idempotency_key is None else idempotency_key}
    return as_request(route | asked | {"sampling": sampling} | key)


def _fresh_key() -> str:
    return secrets.token_urlsafe(16)


def _form_key(fields: Mapping[str, str]) -> str | None:
    """A digest of all that it says: a browser goes back to a form with its old key, and other text is another job."""
    if not fields.get(KEY_FIELD):
        return None
    return "form-" + hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()


def _number(label: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidRequest(f"{label}: a number, not {text!r}") from error


async def _form(
    request: Request, fields: Mapping[str, str], status: int = HTTPStatus.OK, problem: str = ""
) -> Response:
    fleet: AsyncProducer = request.app.state.producer
    models = list(await fleet.models())
    served = [worker.model for worker in await fleet.workers() if worker.is_ready and worker.model in models]
    return page(
        request,
        "try.html",
        status=status,
        problem=problem,
        fields={"model": next(iter(served or models), ""), KEY_FIELD: _fresh_key()} | dict(fields),
        models=models,
        kinds=KINDS,
        most_tokens=MAX_OUTPUT_TOKENS,
    )
