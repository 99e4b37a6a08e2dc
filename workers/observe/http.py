"""``/metrics``, ``/health`` and ``/ready`` of one worker process, on a thread of their own."""

import json
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, make_wsgi_app

from workers.observe.phase import WorkerState

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class PortTaken(Exception):
    """The metrics port cannot be listened on; the message names the setting."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes and probes are not worth a line."""


class ObserveServer:
    """The three pages; ``close`` frees the port."""

    def __init__(self, host: str, port: int, state: WorkerState) -> None:
        self._state = state
        self._metrics = make_wsgi_app(REGISTRY)
        try:
            self._server = make_server(host, port, self._answer, _Server, _QuietHandler)
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port} ({error.strerror}); set metrics.port to a free one"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="observe-http", daemon=True)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                answer: Iterable[bytes] = self._metrics(environ, start_response)
                return answer
            case "/health":
                return self._status(self._state.is_healthy, start_response)
            case "/ready":
                return self._status(self._state.is_ready, start_response)
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /health and /ready are here\n"]

    def _status(self, is_good: bool, start_response: StartResponse) -> Iterable[bytes]:  # noqa: FBT001 - private
        status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps(self._state.described()).encode() + b"\n"]

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
