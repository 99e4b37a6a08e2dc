"""The operator's page as an app of its own, mounted into the gateway: other errors, another door, no JSON."""

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from producer.errors import FleetError
from producer.gateway.errors import NotAllowed
from producer.gateway.ui import dead, jobs, login, overview, trying
from producer.gateway.ui.door import Door
from producer.gateway.ui.rendering import error_page


def create_ui(state: State) -> Starlette:
    """The app; it shares the gateway's state, which has the producer and the keys once the gateway has started."""
    routes = [
        Route("/", overview.show),
        Route("/login", login.show),
        Route("/login", login.log_in, methods=["POST"]),
        Route("/logout", login.log_out, methods=["POST"]),
        Route("/dead", dead.show_list),
        Route("/letter", dead.show_letter),
        Route("/letter/replay", dead.replay, methods=["POST"]),
        Route("/letter/purge", dead.purge, methods=["POST"]),
        Route("/jobs", jobs.show_list),
        Route("/job", jobs.show_job),
        Route("/job/events", jobs.events),
        Route("/job/cancel", jobs.cancel, methods=["POST"]),
        Route("/try", trying.show),
        Route("/try", trying.submit, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("producer.gateway.ui", "static")])),
    ]
    handlers = {HTTPException: _http_error, FleetError: _error, NotAllowed: _error, Exception: _error}
    ui = Starlette(routes=routes, middleware=[Middleware(Door)], exception_handlers=handlers)
    ui.state = state
    state.overview = overview.Overview()
    return ui


def _error(request: Request, error: Exception) -> Response:
    return error_page(request, error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    return error_page(request, NotAllowed(error.status_code, "http", str(error.detail)))
