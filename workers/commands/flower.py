"""``fleet flower``: Celery's dashboard over this fleet's queues."""

import os
import sys

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from workers.commands.worker import ConfigOption, RedisOption
from workers.exit_codes import EXIT_CONFIGURATION


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="flower")(flower)


def flower(config: ConfigOption = None, redis_url: RedisOption = None, port: int | None = None) -> None:
    """Show every job, worker and queue of the fleet in Flower."""
    overrides = {"redis.url": redis_url, "flower.port": port}
    try:
        settings = load_settings(config_file=config, environ=os.environ, overrides=overrides).settings
    except SettingsError as error:
        typer.echo(f"fleet flower: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    command, environ = flower_command(settings), os.environ | flower_environment(settings)
    os.execve(command[0], command, environ)  # noqa: S606 - Flower takes this process's place


def flower_command(settings: Settings) -> list[str]:
    """Flower's command line. The broker's address is in the environment, where ``ps`` does not show its password."""
    return [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "workers.flower_app",
        "flower",
        f"--address={settings.flower.host}",
        f"--port={settings.flower.port}",
    ]


def flower_environment(settings: Settings) -> dict[str, str]:
    """What Flower's process needs beside its command line."""
    return {"CELERY_BROKER_URL": settings.redis.url}
