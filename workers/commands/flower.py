"""``fleet flower``: Celery's dashboard over this fleet's queues."""

import os

import typer

from config.errors import SettingsError
from config.loading import load_settings
from producer.tls_options import tls_options
from workers.commands.fleet_options import ConfigOption, RedisOption
from workers.exit_codes import EXIT_CONFIGURATION
from workers.local.flower import StateUnusable, flower_command, flower_environment, prepare_state


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="flower")(flower)


def flower(config: ConfigOption = None, redis_url: RedisOption = None, port: int | None = None) -> None:
    """Show every job, worker and queue of the fleet in Flower."""
    overrides = {"redis.url": redis_url, "flower.port": port}
    try:
        settings = load_settings(config_file=config, environ=os.environ, overrides=overrides).settings
        tls_options(settings.redis.url)
        prepare_state(settings)
    except (SettingsError, StateUnusable, ValueError) as error:
        typer.echo(f"fleet flower: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    command, environ = flower_command(), os.environ | flower_environment(settings)
    os.execve(command[0], command, environ)  # noqa: S606 - Flower takes this process's place
