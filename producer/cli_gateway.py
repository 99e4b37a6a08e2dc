"""``fleet gateway``: the HTTP door, where its packages are installed."""

import signal
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_producer import open_client
from producer.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """What ``fleet gateway`` takes."""

    host: Annotated[str, typer.Option(envvar="FLEET_GATEWAY__HOST", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(envvar="FLEET_GATEWAY__PORT", min=1, max=65_535)] = 8000
    require_keys: Annotated[
        bool,
        typer.Option("--require-keys", envvar="FLEET_GATEWAY__REQUIRE_KEYS", help="Answer to keys only: fleet keys."),
    ] = False
    redis_url: RedisUrl = DEFAULT_REDIS_URL


@takes(GatewayOptions)
def gateway(options: GatewayOptions) -> None:
    """Serve OpenAI's API and the fleet's jobs over HTTP until Ctrl-C."""
    if not options.require_keys and not is_this_machine(options.host):
        raise InvalidRequest(
            f"--host {options.host}: without keys the gateway listens on this machine only (127.0.0.1, ::1, "
            "localhost); add --require-keys, and make a key with: fleet keys create NAME"
        )
    open_client(options.redis_url).close()
    try:
        import uvicorn

        from producer.gateway.app import create_app
    except ImportError as error:
        raise InvalidRequest(
            f"the gateway's packages are missing ({error.name}): pip install 'inference-fleet-producer[gateway]'"
        ) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn stops at them, and raises them again when it has
    app = create_app(options.redis_url, require_keys=options.require_keys)
    uvicorn.run(app, host=options.host, port=options.port, log_level="info", server_header=False)


def is_this_machine(host: str) -> bool:
    """Whether nobody else can reach this address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
