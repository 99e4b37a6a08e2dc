"""Commands with many options: one dataclass instead of many parameters."""

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import typer

from producer.errors import InvalidRequest

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
REDIS_URL_VARIABLE: Final = "FLEET_REDIS_URL"
REDIS_URL_FILE_VARIABLE: Final = "FLEET_REDIS_URL_FILE"
"""Names a file that holds the address: containers get what holds a password as a file."""


def address_in_file(context: typer.Context, address: str) -> str:
    """The address in the file that ``FLEET_REDIS_URL_FILE`` names; an address on the command line wins.

    Raises:
        InvalidRequest: the file cannot be read or is empty, or ``FLEET_REDIS_URL`` says something else.
    """
    source = context.get_parameter_source("redis_url")
    path = os.environ.get(REDIS_URL_FILE_VARIABLE)
    if not path or source is None or source.name == "COMMANDLINE":
        return address
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{REDIS_URL_FILE_VARIABLE}: {path} cannot be read: {error}") from error
    if not content:
        raise InvalidRequest(f"{REDIS_URL_FILE_VARIABLE}: {path} is empty")
    if source.name == "ENVIRONMENT" and address != content:
        raise InvalidRequest(f"{REDIS_URL_VARIABLE} and {REDIS_URL_FILE_VARIABLE} differ: leave one out")
    return content


RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis-url",
        envvar=REDIS_URL_VARIABLE,
        callback=address_in_file,
        help="The fleet's Redis; FLEET_REDIS_URL_FILE names a file that holds it.",
        show_default=True,
    ),
]

Options = TypeVar("Options")


def takes(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Let Typer call ``command(options)`` with a dataclass whose fields are ``Annotated`` Typer options."""
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        def call(**values: Any) -> None:  # noqa: ANN401 - Typer checked them
            command(options(**values))

        call.__doc__ = command.__doc__
        call.__name__ = command.__name__
        call.__annotations__ = {}
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate
