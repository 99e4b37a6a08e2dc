"""``fleet config``: what is in force, where it came from, and which profiles there are."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.errors import SettingsError
from config.loading import ShownSetting, load_settings
from config.profile_files import profile_description, profile_names

USAGE_ERROR = 2
"""Exit code for settings that are wrong, as for options that are wrong."""

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="PATH", help="Settings file instead of fleet.toml.")
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="NAME|PATH", help="Profile to start from; see: fleet config profiles")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON by setting name, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the command group ``config`` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Settings in force, and profiles.")
    group.command("show")(show)
    group.command("profiles")(profiles)
    app.add_typer(group, name="config")


def show(config: ConfigOption = None, profile: ProfileOption = None, *, as_json: JsonOption = False) -> None:
    """Show every setting in force and the source that set it; passwords are masked."""
    with one_line_errors():
        loaded = load_settings(config_file=config, environ=os.environ, overrides={"profile": profile})
    shown = loaded.shown()
    if as_json:
        content = {setting.name: {"value": setting.value, "source": setting.origin} for setting in shown}
        typer.echo(json.dumps(content, indent=2, default=str))
    elif sys.stdout.isatty():
        Console().print(_table(shown))
    else:
        typer.echo(_plain(shown))


def profiles() -> None:
    """List the packaged profiles, one line each."""
    width = max(map(len, profile_names()))
    for name in profile_names():
        typer.echo(f"{name:<{width}}  {profile_description(name)}")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn wrong settings into one line on standard error and exit code 2."""
    try:
        yield
    except SettingsError as error:
        typer.echo(f"fleet: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from error


def _table(shown: list[ShownSetting]) -> Table:
    table = Table("Setting", "Value", "Source")
    for setting in shown:
        # Text, because a plain string's square brackets would be read as markup.
        table.add_row(setting.name, Text(_text(setting.value)), Text(setting.origin))
    return table


def _plain(shown: list[ShownSetting]) -> str:
    """One line per setting, three columns, never wrapped or cut: for pipes and logs."""
    rows = [(setting.name, _text(setting.value), setting.origin) for setting in shown]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows)


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
