"""A real HTTP server that receives webhooks, and checks them with the specification's own library."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from tests.waiting import free_port

Reply = tuple[int, Mapping[str, str]]


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        """The same for each attempt of one webhook."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """Its content, once the signature has proved right."""
        content: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return content


@dataclass
class Receiver:
    """What came, in its order; ``answer`` says what to reply, and may wait."""

    port: int
    scheme: str = "http"
    answer: Callable[[Received], Reply] = lambda _: (204, {})
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where to send webhooks."""
        return f"{self.scheme}://localhost:{self.port}/hook"

    def of_job(self, job_id: str) -> list[Received]:
        """What came of one job."""
        return [one for one in self.received if job_id in one.event_id]


@contextmanager
def receiving(port: int | None = None, certificate: Path | None = None) -> Iterator[Receiver]:
    """A receiver that listens; with TLS where there is a certificate with its key."""
    receiver = Receiver(port or free_port(), "https" if certificate else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            one = Received(self.path, headers, self.rfile.read(length))
            receiver.received.append(one)
            status, more = receiver.answer(one)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever sent was killed."""

    server = Server(("127.0.0.1", receiver.port), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
