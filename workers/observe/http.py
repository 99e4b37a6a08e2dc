"""``/metrics`` and the like: a few pages of one process, on a thread of their own."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from workers.observe.phase import WorkerState

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Page = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class PortTaken(Exception):
    """The port cannot be listened on; the message names the setting."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes and probes are not worth a line."""


def metrics_page(registry: CollectorRegistry) -> Page:
    """The registry in Prometheus' text format, whatever is asked for.

    In OpenMetrics prometheus-client writes ``vllm_…`` for ``vllm:…`` unless the other side takes UTF-8 names, which
    Prometheus 2 does not: vLLM's own dashboards would be empty.
    """
    page = make_wsgi_app(registry)

    def as_text(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = page({**environ, "HTTP_ACCEPT": "text/plain"}, start_response)
        return answer

    return as_text


def status_page(is_good: Callable[[], bool], described: Callable[[], Mapping[str, object]]) -> Page:
    """200 or 503, for probes; what people see beside it."""

    def answer(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status = HTTPStatus.OK if is_good() else HTTPStatus.SERVICE_UNAVAILABLE
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps(described()).encode() + b"\n"]

    return answer


def worker_pages(state: WorkerState) -> dict[str, Page]:
    """Of a worker process."""
    return {
        "/metrics": metrics_page(REGISTRY),
        "/health": status_page(lambda: state.is_healthy, state.described),
        "/ready": status_page(lambda: state.is_ready, state.described),
    }


class PageServer:
    """Serves pages by their paths; ``close`` frees the port.

    Args:
        host: address to listen on.
        port: and port.
        pages: by path.
        setting: what names the port, for whoever finds it taken.

    Raises:
        PortTaken: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page], setting: str = "metrics.port") -> None:
        self._pages = pages
        try:
            self._server = make_server(host, port, self._answer, _Server, _QuietHandler)
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to a free one"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            *first, last = self._pages
            return [f"{', '.join(first)} and {last} are here\n".encode()]
        return page(environ, start_response)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
