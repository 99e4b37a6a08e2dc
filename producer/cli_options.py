"""Commands with many options: one dataclass instead of many parameters."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"

RedisUrl = Annotated[
    str, typer.Option("--redis-url", envvar="FLEET_REDIS_URL", help="The fleet's Redis.", show_default=True)
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
