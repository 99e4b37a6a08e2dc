"""``fleet gateway``: the HTTP door, where its packages are installed."""

from producer.cli_options import takes
from producer.cli_producer import open_client
from producer.errors import InvalidRequest
from producer.gateway.options import GatewayOptions


@takes(GatewayOptions)
def gateway(options: GatewayOptions) -> None:
    """Serve OpenAI's API and the fleet's jobs over HTTP until Ctrl-C."""
    options.check()
    open_client(options.redis_url).close()
    try:
        from producer.gateway.serving import serve
    except ImportError as error:
        raise InvalidRequest(
            f"the gateway's packages are missing ({error.name}): pip install 'inference-fleet-producer[gateway]'"
        ) from error
    serve(options)
