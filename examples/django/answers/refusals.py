"""What a visitor is told when the fleet refuses."""

import logging

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin

from producer import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    QueueFull,
    ResultExpired,
    UnknownModel,
)

log = logging.getLogger(__name__)


class FleetErrors(MiddlewareMixin):
    """Answers what the fleet raises and no view expects."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A page with one sentence; None for what is none of the fleet's."""
        if not isinstance(error, FleetError):
            return None
        status, sentence = refusal(error)
        if status >= 500:
            log.error("%s: %s", type(error).__name__, error)
        response = render(request, "answers/refused.html", {"sentence": sentence}, status=status)
        if status == 503:
            response["Retry-After"] = "30"
        return response


def refusal(error: FleetError) -> tuple[int, str]:
    """Status and sentence for the visitor. The errors' own words are the operator's: they name addresses and models."""
    match error:
        case InvalidRequest():
            return 400, str(error)
        case ResultExpired():
            return 404, "There is no such answer, or not any more."
        case QueueFull():
            return 503, "Too many questions are waiting. Please try again in a minute."
        case UnknownModel() | FleetUnreachable():
            return 503, "No questions are taken at the moment. Please try again in a minute."
        case InferenceFailed():
            return error.code.http_status, f"There is no answer: {error.code}."
    return 500, "Something went wrong."
