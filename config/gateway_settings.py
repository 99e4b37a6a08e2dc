"""The settings of the HTTP gateway; ``fleet gateway`` has an option for each."""

from ipaddress import ip_address
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from config.group import DAY_SECONDS, Host, Port, Seconds, SettingsGroup


def is_this_machine(host: str) -> bool:
    """Whether nobody else can reach this address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GatewaySettings(SettingsGroup):
    """Where the HTTP gateway listens, and what it takes."""

    port: Port = 8000
    """Port; vLLM's own server's."""
    host: Host = "127.0.0.1"
    """Address to listen on; without keys it must be this machine's own."""
    require_keys: bool = False
    """Answer only to who has a key (``fleet keys create NAME``)."""
    tls_certificate: str = ""
    """PEM file with the certificate, then its chain; empty: no TLS. Beyond this machine without it, a proxy should."""
    tls_key: str = ""
    """PEM file with the certificate's private key, without a password."""
    cors_origins: str = ""
    """Origins of web pages that may call from a browser (`https://app.example`), with commas; `*`: any; empty: none."""
    read_timeout_seconds: Seconds = 30.0
    """Seconds for a request's head to arrive, and for its body; 8 MiB take 30 s at 2.2 Mbit/s."""
    keep_alive_seconds: int = Field(default=5, ge=1, le=DAY_SECONDS)
    """Seconds after which a connection on which nothing is asked is closed."""
    request_timeout_seconds: Seconds = 600.0
    """Seconds that an answer which is not streamed may take; then 504, and the job is cancelled unless it has an
    idempotency key. 600, as OpenAI's clients wait."""
    max_concurrent_requests: int = Field(default=4096, ge=1, le=1_000_000)
    """Requests answered at a time, waiting ones and open streams among them; more get a 503. 2,000 waiting callers and
    500 streams are known to work."""
    max_buffered_bytes: int = Field(default=256 * 1024**2, ge=16 * 1024**2)
    """Bytes of requests that are being answered and of answers that are being sent, all together; a request that does
    not fit gets a 503 before its body is read."""
    shutdown_timeout_seconds: int = Field(default=10, ge=1, le=DAY_SECONDS)
    """Seconds that open requests have to end after SIGTERM; then their connections are closed, and their jobs go on."""

    webhook_allow_hosts: str = ""
    """Hosts, by name, that webhooks may go to whatever their address; commas part them. All others must be public."""
    conversation_expires_seconds: Annotated[int, Field(ge=1)] = 24 * 3600
    """How long a conversation is kept after its last turn."""
    conversation_max_tokens: Annotated[int, Field(ge=1)] = 8_192
    """Most tokens of a turn's prompt and answer; the oldest turns leave first. The model's context, or less."""
    conversation_wait_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long a turn waits for those before it to be answered."""

    @field_validator("require_keys")
    @classmethod
    def _is_needed_beyond_this_machine(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's
        if not value and not is_this_machine(host := info.data.get("host", "localhost")):
            raise ValueError(f"must be true with gateway.host {host!r}, which others can reach")
        return value

    @field_validator("tls_key")
    @classmethod
    def _belongs_to_a_certificate(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) != bool(info.data.get("tls_certificate", value)):
            raise ValueError("gateway.tls_certificate and gateway.tls_key are set together")
        return value
