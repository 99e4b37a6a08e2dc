"""``fleet gateway``: the HTTP door, where its packages are installed."""

import signal
from ipaddress import ip_address
from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_client
from producer.errors import InvalidRequest


def gateway(
    host: Annotated[str, typer.Option(envvar="FLEET_GATEWAY__HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="FLEET_GATEWAY__PORT", min=0, max=65_535)] = 8000,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Serve OpenAI's API and the fleet's jobs over HTTP, on this machine only, until Ctrl-C."""
    if not _is_loopback(host):
        raise InvalidRequest(
            f"--host {host}: the gateway knows no keys yet, so it listens on this machine only (127.0.0.1, ::1, "
            "localhost); put a proxy that checks its callers in front of it"
        )
    open_client(redis_url).close()
    try:
        import uvicorn

        from producer.gateway.app import create_app
    except ImportError as error:
        raise InvalidRequest(
            f"the gateway's packages are missing ({error.name}): pip install 'inference-fleet-producer[gateway]'"
        ) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn stops at them, and raises them again when it has
    uvicorn.run(create_app(redis_url), host=host, port=port, log_level="info", server_header=False)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
