"""A span of kind SERVER around each request, below the one that the client's ``traceparent`` names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.gateway.access_log import REQUEST_ID
from producer.gateway.callers import OPEN_PATHS
from producer.tracing.creating import INSTRUMENTATION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

FIRST_SERVER_ERROR = 500


class TracedRequests:
    """Around everything else; health checks are not traced."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        self._app = app
        self._provider = provider
        self._tracer = provider.get_tracer(INSTRUMENTATION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                self._provider.shutdown()  # sends what waits
            return
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        parent = TraceContextTextMapPropagator().extract(dict(Headers(scope=scope)))
        method = scope["method"]
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER, attributes) as span:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_answer(span, message)
                await send(message)

            try:
                await self._app(scope, receive, told)
            finally:
                _note_route(span, method, scope)


def _note_answer(span: trace.Span, message: Mapping[str, Any]) -> None:
    span.set_attribute("http.response.status_code", message["status"])
    span.set_attribute("fleet.request_id", Headers(raw=list(message["headers"])).get(REQUEST_ID, ""))
    if message["status"] >= FIRST_SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR))


def _note_route(span: trace.Span, method: str, scope: Scope) -> None:
    # The route and not the path, which has a job's id in it: names of spans are to be few.
    if path := getattr(scope.get("route"), "path", None):
        span.update_name(f"{method} {path}")
        span.set_attribute("http.route", path)
