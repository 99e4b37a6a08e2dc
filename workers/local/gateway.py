"""How the HTTP gateway is started beside a local fleet."""

import sys
from collections.abc import Mapping

from config.settings import Settings
from config.variables import variables


def gateway_command(settings: Settings) -> list[str]:
    """The gateway's command line."""
    given = settings.gateway
    numbers = {
        "port": given.port,
        "read-timeout-seconds": given.read_timeout_seconds,
        "keep-alive-seconds": given.keep_alive_seconds,
        "request-timeout-seconds": given.request_timeout_seconds,
        "max-concurrent-requests": given.max_concurrent_requests,
        "max-buffered-bytes": given.max_buffered_bytes,
        "shutdown-timeout-seconds": given.shutdown_timeout_seconds,
        "conversation-expires-seconds": given.conversation_expires_seconds,
        "conversation-max-tokens": given.conversation_max_tokens,
        "conversation-wait-seconds": given.conversation_wait_seconds,
    }
    texts = {
        "host": given.host,
        "tls-certificate": given.tls_certificate,
        "tls-key": given.tls_key,
        "cors-origin": given.cors_origins,
        "webhook-allow-hosts": given.webhook_allow_hosts,
    }
    options = numbers | {name: text for name, text in texts.items() if text}
    command = [sys.executable, "-m", "producer.cli", "gateway"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [*command, "--require-keys"] if given.require_keys else command


def gateway_environment(settings: Settings) -> Mapping[str, str]:
    """What it needs beside that; Redis' address may hold a password, which ``ps`` must not show."""
    return {"FLEET_REDIS_URL": settings.redis.url} | variables(settings, "log") | variables(settings, "tracing")


def gateway_url(settings: Settings) -> str:
    """Its address."""
    scheme = "https" if settings.gateway.tls_certificate else "http"
    return f"{scheme}://{settings.gateway.host}:{settings.gateway.port}"
