"""Errors as OpenAI's API says them: the status, and a body that names what is wrong."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

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
    TurnInProgress,
    UnknownConversation,
    UnknownModel,
)
from producer.gateway.findings import refusal
from producer.gateway.waiting import CLIENT_CLOSED_REQUEST, ClientGone

RETRY_AFTER_SECONDS: Final = 1
"""Where nothing is known that tells better."""
SERVER_ERROR: Final = 500


class BadParameter(Exception):
    """A parameter that is refused, and why."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class Overloaded(HTTPException):
    """There is no room for the request now; of this kind because FastAPI lets no other through from a body."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message)


class NotAllowed(Exception):
    """The caller may not do that."""

    def __init__(
        self, status: int, code: str, message: str, retry_after_seconds: int | None = RETRY_AFTER_SECONDS
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        """Where trying again can help; None: it can not."""


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


def entry(error: FleetError) -> dict[str, Any]:
    """What one of several is told in its place; of a full queue also when to expect room."""
    content = of_fleet(error)[1]
    if isinstance(error, QueueFull):
        return content | {"retry_after_seconds": error.retry_after_seconds}
    return content


_OF_FLEET: Final[dict[type[FleetError], tuple[int, str, str | None]]] = {
    UnknownModel: (HTTPStatus.NOT_FOUND, FailureCode.MODEL_NOT_FOUND, "model"),
    QueueFull: (HTTPStatus.TOO_MANY_REQUESTS, FailureCode.QUEUE_FULL, None),
    InvalidRequest: (HTTPStatus.BAD_REQUEST, FailureCode.INVALID_REQUEST, None),
    ResultExpired: (HTTPStatus.NOT_FOUND, "job_not_found", None),
    UnknownConversation: (HTTPStatus.NOT_FOUND, "conversation_not_found", None),
    TurnInProgress: (HTTPStatus.CONFLICT, "turn_in_progress", "conversation_id"),
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
        return fleet_refused(error)

    def bad_parameter(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, BadParameter)  # noqa: S101 - registered for it alone
        return answer(400, body(400, str(error), code="invalid_parameter", parameter=error.parameter))

    def not_allowed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, NotAllowed)  # noqa: S101 - registered for it alone
        return refused(error)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
        message, code, parameter = refusal(error.errors(), error.body)
        return answer(400, body(400, message, code=code, parameter=parameter))

    def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
        code = "overloaded" if isinstance(error, Overloaded) else None
        return answer(error.status_code, body(error.status_code, str(error.detail), code=code))

    def broken(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again afterwards, so that the log has it; the caller is told nothing of our insides.
        return answer(500, body(500, f"an error in the gateway: {type(error).__name__}", code=FailureCode.INTERNAL))

    def client_gone(_: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(ClientGone, client_gone)
    app.add_exception_handler(FleetError, fleet_error)
    app.add_exception_handler(BadParameter, bad_parameter)
    app.add_exception_handler(NotAllowed, not_allowed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)


def refused(error: NotAllowed) -> JSONResponse:
    """The response to a caller who may not do that."""
    content = body(error.status, str(error), code=error.code)
    return answer(error.status, content, retry_after_seconds=error.retry_after_seconds)


def fleet_refused(error: FleetError) -> JSONResponse:
    """The response to what the fleet raised; a full queue says when to expect room."""
    seconds = error.retry_after_seconds if isinstance(error, QueueFull) else RETRY_AFTER_SECONDS
    return answer(*of_fleet(error), retry_after_seconds=seconds)


def answer(
    status: int, content: dict[str, Any], *, retry_after_seconds: int | None = RETRY_AFTER_SECONDS
) -> JSONResponse:
    """The response; it says when to try again where that can help."""
    is_passing = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    may_help = is_passing and retry_after_seconds is not None
    return JSONResponse(content, status, {"Retry-After": str(retry_after_seconds)} if may_help else None)
