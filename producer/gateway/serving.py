"""The server around the door: uvicorn on h11, which bounds a request's head, in size and, here, in time."""

import asyncio
import logging
import os
import signal
import socket
from asyncio import TimerHandle
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from producer.client import Producer
from producer.errors import FleetUnreachable, InvalidRequest
from producer.gateway.app import create_app
from producer.gateway.buffers import Buffers
from producer.gateway.bulk import BULK_PATH
from producer.gateway.door import RESERVED_PLACES, door
from producer.gateway.options import GatewayOptions
from producer.logs.setting_up import set_up_logging
from producer.refusals import advice
from producer.tracing.exporting import tracer_provider
from producer.webhooks.addresses import AddressPolicy, host_names
from producer.webhooks.deliverer import DeliveryOptions

GRACE_SECONDS: Final = 5.0
"""That a request whose body is late has for its answer, before its connection is closed in any case."""
LOGGER: Final = logging.getLogger("fleet.gateway")


class ImpatientProtocol(H11Protocol):
    """Closes the connection of a request that does not come to its end; uvicorn itself would wait for ever."""

    read_timeout_seconds = 30.0
    _late: TimerHandle | None = None
    _has_heard = False
    """Whether anything has arrived since the timer was set."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Somebody connected, and has so long for a request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.read_timeout_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """A part of a request, of any size."""
        super().data_received(data)
        self._has_heard = True
        if not self._is_within_a_request:
            self._stop_waiting()
        elif self._late is None:
            self._late = self.loop.call_later(self.read_timeout_seconds, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_within_a_request(self) -> bool:
        """Whether a head or a body has begun and not ended."""
        state = self.conn.their_state
        return state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))

    def _give_up(self) -> None:
        self._late = None
        if self._has_heard and self.cycle is not None and self.scope["path"] == BULK_PATH:
            self._has_heard = False
            self._late = self.loop.call_later(self.read_timeout_seconds, self._give_up)
        elif self.cycle is not None and not self.cycle.response_complete and not self.cycle.keep_alive:
            self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            # It is being told (door.BodyDeadline); it may not hear.
            self.cycle.keep_alive = False
            self._late = self.loop.call_later(GRACE_SECONDS, self._give_up)
        else:
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _traced(app: ASGIApp, options: GatewayOptions) -> ASGIApp:
    if not options.tracing:
        return app
    provider = tracer_provider("fleet-gateway")
    from opentelemetry.trace import set_tracer_provider

    from producer.gateway.tracing import TracedRequests

    set_tracer_provider(provider)  # the producer's spans are made with it
    return TracedRequests(app, provider)


def _refuse_a_taken_port(host: str, port: int) -> None:
    """Before uvicorn finds out, which ends with a number.

    Raises:
        InvalidRequest: nobody can listen there.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise InvalidRequest(
            f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); set --port to a free one"
        ) from error


def _look_for_redis(redis_url: str) -> None:
    """A server that is not there yet is waited for, request by request.

    Raises:
        FleetUnreachable: it is there, and refuses us.
    """
    try:
        with Producer(redis_url) as producer:
            producer.models()
    except FleetUnreachable as error:
        if advice(error.__cause__):
            raise
        LOGGER.warning("%s; until it answers, requests get 503", error, extra={"action": "gateway_without_redis"})


def serve(options: GatewayOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidRequest: its port cannot be listened on.
        FleetUnreachable: Redis refuses us.
    """
    _refuse_a_taken_port(options.host, options.port)
    set_up_logging(options, "gateway", file="gateway")
    _look_for_redis(options.redis_url)
    if options.is_open_to_read:
        LOGGER.warning(
            "listening on %s without TLS: keys and prompts can be read on their way; give --tls-certificate and "
            "--tls-key, or put a proxy in front that has them",
            options.host,
            extra={"action": "gateway_open_to_read"},
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn stops at them, and raises them again when it has
    delivery = DeliveryOptions(AddressPolicy(host_names(options.webhook_allow_hosts))) if options.webhooks else None
    app = create_app(
        options.redis_url,
        require_keys=options.require_keys,
        request_timeout_seconds=options.request_timeout_seconds,
        conversation_terms=options.conversation_terms,
        delivery=delivery,
    )
    app.state.buffers = Buffers(options.max_buffered_bytes)
    uvicorn.run(
        _traced(door(app, options), options),
        host=options.host,
        port=options.port,
        http=type("Protocol", (ImpatientProtocol,), {"read_timeout_seconds": options.read_timeout_seconds}),
        ws="none",
        log_config=None,
        log_level="info",
        access_log=False,
        server_header=False,
        # Connections, in which nothing need be asked; beyond, uvicorn's own 503.
        limit_concurrency=options.max_concurrent_requests * 2 + RESERVED_PLACES,
        timeout_keep_alive=options.keep_alive_seconds,
        timeout_graceful_shutdown=options.shutdown_timeout_seconds,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
