"""``fleet up``: a server, a worker, the gateway, the exporter and Flower on this machine, until Ctrl-C."""

import signal
import threading
from pathlib import Path

import typer
from rich.console import Console

from config.errors import SettingsError
from producer.cli_options import takes
from workers.commands.fleet_options import ServeOptions
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE
from workers.local.model import model_or_tiny
from workers.local.stack import LocalStack, StackFailed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="up")(up)


@takes(ServeOptions)
def up(options: ServeOptions) -> None:
    """Start a whole fleet here, with an embedded server unless FLEET_REDIS_URL names one."""
    console = Console()
    folder = Path(".fleet")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        overrides = model_or_tiny(options.overrides(), folder, options.config)
        with LocalStack(folder, overrides, options.config) as stack:
            console.print("loading the model …")
            stack.wait_until_ready(lambda: _leave_when(stopped))
            console.print(f"[bold]{stack.settings.model.served_as}[/] is served; Ctrl-C stops everything")
            console.print(f"  FLEET_REDIS_URL={stack.settings.redis.url}")
            console.print(f"  OpenAI   {stack.gateway_url}/v1")
            console.print(
                f"  Flower   {stack.flower_url}\n  metrics  {stack.metrics_url}/metrics, {stack.exporter_url}/metrics"
            )
            stopped.wait()
    except SettingsError as error:
        typer.echo(f"fleet up: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    except StackFailed as error:
        typer.echo(f"fleet up: {error}", err=True)
        raise typer.Exit(EXIT_ENGINE) from error


def _leave_when(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise typer.Exit(0)
