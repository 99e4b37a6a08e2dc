"""The OpenAPI document as the gateway answers: its errors, with their bodies, and how a key is given."""

from typing import Any, Final

from fastapi import FastAPI

from producer.gateway.callers import OPEN_PATHS, SCHEME

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Error",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""As OpenAI's API has it."""
READY_PATH: Final = "/ready"
EVERYWHERE: Final = {
    400: "A parameter is not what it should be; `param` names it.",
    401: "No key was given, or none that is known.",
    403: "This caller may not do that.",
    404: "No such model, job or conversation.",
    503: "Redis is away, or too many requests are being answered; `Retry-After` says when to try again.",
}
WHERE_SOMETHING_CHANGES: Final = {409: "It does not fit what is there: a turn in progress, a job that has ended."}
WHERE_JOBS_ARE_SUBMITTED: Final = {
    408: "The body came too slowly.",
    413: "The body is larger than any job.",
    429: "A queue is full, or a key's rate limit is reached; `Retry-After` says when to try again.",
    504: "The answer took longer than a request may.",
}


def describe(app: FastAPI, *, require_keys: bool) -> None:
    """Let the app's document tell so; FastAPI's own promises a 422 that nobody gets."""
    as_fastapi_has_it = app.openapi

    def document() -> dict[str, Any]:
        is_known = app.openapi_schema is not None
        told = as_fastapi_has_it()
        return told if is_known else _corrected(told, require_keys=require_keys)

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to change it


def _corrected(document: dict[str, Any], *, require_keys: bool) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = SCHEMA
    components["securitySchemes"] = {SCHEME: {"type": "http", "scheme": SCHEME}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            responses.pop("422", None)
            for status, meaning in _errors(path, method).items():
                content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
                responses.setdefault(str(status), {"description": meaning, "content": content})
            if require_keys and path not in OPEN_PATHS:
                operation["security"] = [{SCHEME: []}]
    return document


def _errors(path: str, method: str) -> dict[int, str]:
    if path in OPEN_PATHS:
        return {status: EVERYWHERE[status] for status in (400, 404)} if path == READY_PATH else {}
    match method:
        case "post":
            return EVERYWHERE | WHERE_SOMETHING_CHANGES | WHERE_JOBS_ARE_SUBMITTED
        case "delete":
            return EVERYWHERE | WHERE_SOMETHING_CHANGES
    return EVERYWHERE
