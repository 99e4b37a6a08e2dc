"""Errors as OpenAI's API says them: the status, and a body that names what is wrong."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from producer.contract import FailureCode
from producer.errors import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    NotCancellable,
    QueueFull,
    ResultExpired,
    ResultNotReady,
    UnknownModel,
)

RETRY_AFTER_SECONDS: Final = 1
"""Where nothing is known that tells better."""
SERVER_ERROR: Final = 500


class BadParameter(Exception):
    """A parameter that is refused, and why."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class NotAllowed(Exception):
    """The caller may not do that."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def body(status: int, message: str, *, code: str | None = None, parameter: str | None = None) -> dict[str, Any]:
    """An error's body."""
    return {"error": {"message": message, "type": _kind(status), "param": parameter, "code": code}}


def _kind(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= SERVER_ERROR else "invalid_request_error"


def of_fleet(error: FleetError) -> tuple[int, dict[str, Any]]:
    """Status and body of what the fleet raised."""
    if isinstance(error, InferenceFailed):
        return error.code.http_status, body(error.code.http_status, error.message, code=error.code.value)
    kinds = (kind for kind in _OF_FLEET if isinstance(error, kind))
    status, code, parameter = _OF_FLEET[next(kinds, FleetError)]
    return status, body(status, str(error), code=code, parameter=parameter)


_OF_FLEET: Final[dict[type[FleetError], tuple[int, str, str | None]]] = {
    UnknownModel: (HTTPStatus.NOT_FOUND, FailureCode.MODEL_NOT_FOUND, "model"),
    QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, FailureCode.QUEUE_FULL, None),
    InvalidRequest: (HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, None),
    ResultExpired: (HTTPStatus.NOT_FOUND, "job_not_found", None),
    NotCancellable: (HTTPStatus.CONFLICT, "not_cancellable", None),
    ResultNotReady: (HTTPStatus.GATEWAY_TIMEOUT, "timeout", None),
    FleetUnreachable: (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", None),
    FleetError: (HTTPStatus.INTERNAL_SERVER_ERROR, FailureCode.INTERNAL, None),
}
"""Status, code and parameter by error; the first that fits."""


def install(app: FastAPI) -> None:
    """Let every error of the app have such a body."""

    def fleet_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FleetError)  # noqa: S101 - registered for it alone
        return answer(*of_fleet(error))

    def bad_parameter(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, BadParameter)  # noqa: S101 - registered for it alone
        return answer(400, body(400, str(error), code="invalid_parameter", parameter=error.parameter))

    def not_allowed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, NotAllowed)  # noqa: S101 - registered for it alone
        return refused(error)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
        return answer(400, _refusal(error.errors()))

    def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
        return answer(error.status_code, body(error.status_code, str(error.detail)))

    def broken(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again afterwards, so that the log has it; the caller is told nothing of our insides.
        return answer(500, body(500, f"an error in the gateway: {type(error).__name__}", code=FailureCode.INTERNAL))

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(FleetError, fleet_error)
    app.add_exception_handler(BadParameter, bad_parameter)
    app.add_exception_handler(NotAllowed, not_allowed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)


def refused(error: NotAllowed) -> JSONResponse:
    """The response to a caller who may not do that."""
    return answer(error.status, body(error.status, str(error), code=error.code))


def answer(status: int, content: dict[str, Any]) -> JSONResponse:
    """The response; it says when to try again where that can help."""
    may_help = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return JSONResponse(content, status, {"Retry-After": str(RETRY_AFTER_SECONDS)} if may_help else None)


def _refusal(findings: Sequence[Any]) -> dict[str, Any]:
    """Of a body that is not what the route takes: the first finding, by the parameter's name."""
    finding = next((one for one in findings if one["type"] == "extra_forbidden"), findings[0])
    parameter = ".".join(str(part) for part in finding["loc"] if part != "body") or None
    if finding["type"] == "extra_forbidden":
        return body(400, f"unsupported parameter: {parameter!r}", code="unsupported_parameter", parameter=parameter)
    if finding["type"] == "json_invalid":
        return body(400, f"the body is not JSON: {finding['ctx']['error']}", code="invalid_json")
    message = finding["msg"].removeprefix("Value error, ")
    return body(400, f"{parameter}: {message}" if parameter else message, code="invalid_parameter", parameter=parameter)
