"""What ``fleet gateway`` takes, and whether it fits together.

Imports no web framework: where there is none, the command can say so.
"""

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_webhooks import ALLOW_HOSTS_HELP, ALLOW_HOSTS_VARIABLE
from producer.conversation import CONVERSATION_SECONDS, CONVERSATION_TOKENS, TURN_WAIT_SECONDS, ConversationTerms
from producer.errors import InvalidRequest
from producer.logs.options import LogOptions
from producer.loopback import is_this_machine

ANY_ORIGIN: Final = "*"
MOST_BUFFERED_BYTES: Final = 256 * 1024 * 1024
LEAST_BUFFERED_BYTES: Final = 16 * 1024 * 1024
"""The largest request fits."""
_ORIGIN: Final = re.compile(r"https?://[^/?#\s@]+")


@dataclass(frozen=True, slots=True)
class GatewayOptions(LogOptions):
    """The command's options; each is the setting ``gateway.<name>`` too, and its parent's are ``log.<name>``."""

    host: Annotated[str, typer.Option(envvar="FLEET_GATEWAY__HOST", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(envvar="FLEET_GATEWAY__PORT", min=1, max=65_535)] = 8000
    require_keys: Annotated[
        bool,
        typer.Option("--require-keys", envvar="FLEET_GATEWAY__REQUIRE_KEYS", help="Answer to keys only: fleet keys."),
    ] = False
    tls_certificate: Annotated[
        Path | None,
        typer.Option(envvar="FLEET_GATEWAY__TLS_CERTIFICATE", help="PEM file: the certificate, then its chain."),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(envvar="FLEET_GATEWAY__TLS_KEY", help="PEM file: the certificate's private key.")
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="FLEET_GATEWAY__CORS_ORIGINS",
            help="A web page's origin (https://app.example) that may call; again, or with commas, for more; * is all.",
        ),
    ] = None
    read_timeout_seconds: Annotated[
        float,
        typer.Option(
            envvar="FLEET_GATEWAY__READ_TIMEOUT_SECONDS", min=0.1, help="For a request to arrive: its head, its body."
        ),
    ] = 30.0
    keep_alive_seconds: Annotated[
        int,
        typer.Option(envvar="FLEET_GATEWAY__KEEP_ALIVE_SECONDS", min=1, help="Until an idle connection is closed."),
    ] = 5
    request_timeout_seconds: Annotated[
        float,
        typer.Option(
            envvar="FLEET_GATEWAY__REQUEST_TIMEOUT_SECONDS",
            min=0.1,
            help="For an answer that is not streamed; then 504, and its job is cancelled unless it has a key.",
        ),
    ] = 600.0
    max_concurrent_requests: Annotated[
        int,
        typer.Option(
            envvar="FLEET_GATEWAY__MAX_CONCURRENT_REQUESTS", min=1, help="Answered at a time; others get a 503."
        ),
    ] = 4096
    max_buffered_bytes: Annotated[
        int,
        typer.Option(
            envvar="FLEET_GATEWAY__MAX_BUFFERED_BYTES",
            min=LEAST_BUFFERED_BYTES,
            help="Of requests being answered and answers being sent; beyond them a 503.",
        ),
    ] = MOST_BUFFERED_BYTES
    shutdown_timeout_seconds: Annotated[
        int,
        typer.Option(
            envvar="FLEET_GATEWAY__SHUTDOWN_TIMEOUT_SECONDS", min=1, help="For open requests to end after SIGTERM."
        ),
    ] = 10
    conversation_expires_seconds: Annotated[
        int,
        typer.Option(envvar="FLEET_GATEWAY__CONVERSATION_EXPIRES_SECONDS", min=1, help="From its last turn."),
    ] = CONVERSATION_SECONDS
    conversation_max_tokens: Annotated[
        int,
        typer.Option(
            envvar="FLEET_GATEWAY__CONVERSATION_MAX_TOKENS", min=1, help="Of a turn's prompt and answer: the context."
        ),
    ] = CONVERSATION_TOKENS
    conversation_wait_seconds: Annotated[
        float,
        typer.Option(envvar="FLEET_GATEWAY__CONVERSATION_WAIT_SECONDS", min=0, help="For the turns before."),
    ] = TURN_WAIT_SECONDS
    webhooks: Annotated[bool, typer.Option(help="Deliver webhooks too.")] = True
    tracing: Annotated[
        bool, typer.Option(envvar="FLEET_TRACING__ENABLED", help="Send OpenTelemetry traces, as OTEL_… variables say.")
    ] = False
    webhook_allow_hosts: Annotated[str, typer.Option(envvar=ALLOW_HOSTS_VARIABLE, help=ALLOW_HOSTS_HELP)] = ""
    redis_url: RedisUrl = DEFAULT_REDIS_URL

    @property
    def conversation_terms(self) -> ConversationTerms:
        """How conversations are kept."""
        return ConversationTerms(
            self.conversation_expires_seconds, self.conversation_max_tokens, self.conversation_wait_seconds
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that may call."""
        return tuple(origin for given in self.cors_origin or () for origin in _split(given))

    @property
    def has_tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.tls_certificate is not None

    @property
    def is_open_to_read(self) -> bool:
        """Whether others can reach it, and read along where they sit on the way."""
        return not self.has_tls and not is_this_machine(self.host)

    def check(self) -> None:
        """Nothing is wrong with them.

        Raises:
            InvalidRequest: they contradict each other, or a file is not what it should be; the message says what to do.
        """
        if not self.require_keys and not is_this_machine(self.host):
            raise InvalidRequest(
                f"--host {self.host}: without keys the gateway listens on this machine only (127.0.0.1, ::1, "
                "localhost); add --require-keys, and make a key with: fleet keys create NAME"
            )
        _check_origins(self.origins)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidRequest("TLS needs both --tls-certificate FILE and --tls-key FILE")
        if self.tls_certificate is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                    # Without this OpenSSL would ask a terminal for the key's password.
                    self.tls_certificate,
                    self.tls_key,
                    password=_no_password,
                )
            except (OSError, ValueError) as error:
                raise InvalidRequest(
                    f"--tls-certificate {self.tls_certificate}, --tls-key {self.tls_key}: {error}; both are PEM files, "
                    "the key is the certificate's own and has no password"
                ) from error


def _split(given: str) -> Iterable[str]:
    return (part.strip().rstrip("/") for part in given.split(",") if part.strip())


def _check_origins(origins: Iterable[str]) -> None:
    for origin in origins:
        if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
            raise InvalidRequest(
                f"--cors-origin {origin!r}: an origin is a scheme, a host and perhaps a port, as in "
                "https://app.example, or * for any"
            )


def _no_password() -> str:
    raise ValueError("the key has a password")
