"""How processes log; gateway and deliverers have an option for each of these settings."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.group import SettingsGroup


def _upper(value: Any) -> Any:  # noqa: ANN401 - a value before validation
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:  # noqa: ANN401 - a value before validation
    return value.lower() if isinstance(value, str) else value


class LogSettings(SettingsGroup):
    """What is logged, how and where."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = "INFO"
    """Least severity that is written; prompts and answers are written at none."""
    format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = "console"
    """`console`: a sentence for people, then `name=value`; `json`: an object on each line, for programs."""
    file: str = ""
    """File that lines go to as well as to stderr; the kind of process comes before its ending, as in
    `fleet-worker.log` for `fleet.log`. A supervisor writes what its workers say. Empty: stderr alone."""
    max_bytes: int = Field(default=64 * 2**20, ge=1024, le=2**40)
    """Bytes at which the file is put aside under a number; 64 MiB still open in an editor."""
    backups: int = Field(default=5, ge=1, le=1000)
    """Files put aside that are kept; the oldest is removed for the next."""

    @property
    def path(self) -> Path | None:
        """The file, if one is asked for."""
        return Path(self.file).expanduser() if self.file else None
