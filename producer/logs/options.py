"""How a process logs: the settings ``log.*``, as options of a command and as variables of its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

import typer

MIB: Final = 2**20
LEVEL_VARIABLE: Final = "FLEET_LOG__LEVEL"
FORMAT_VARIABLE: Final = "FLEET_LOG__FORMAT"
FILE_VARIABLE: Final = "FLEET_LOG__FILE"
MAX_BYTES_VARIABLE: Final = "FLEET_LOG__MAX_BYTES"
BACKUPS_VARIABLE: Final = "FLEET_LOG__BACKUPS"


class LogLevel(StrEnum):
    """Least severity that is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class LogFormat(StrEnum):
    """For whom lines are."""

    CONSOLE = "console"
    """People: a sentence, then ``name=value``."""
    JSON = "json"
    """Programs: an object on each line."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Options of a command; each is the setting ``log.<name>`` too."""

    log_level: Annotated[
        LogLevel, typer.Option(envvar=LEVEL_VARIABLE, case_sensitive=False, help="Least severity that is written.")
    ] = LogLevel.INFO
    log_format: Annotated[
        LogFormat, typer.Option(envvar=FORMAT_VARIABLE, help="For people, or an object of JSON on each line.")
    ] = LogFormat.CONSOLE
    log_file: Annotated[
        Path | None,
        typer.Option(envvar=FILE_VARIABLE, help="Also into a file, with the kind of process in its name; rotated."),
    ] = None
    log_max_bytes: Annotated[
        int, typer.Option(envvar=MAX_BYTES_VARIABLE, min=1024, help="Size at which the file is put aside.")
    ] = 64 * MIB
    log_backups: Annotated[int, typer.Option(envvar=BACKUPS_VARIABLE, min=1, help="Files put aside that are kept.")] = 5

    @property
    def is_json(self) -> bool:
        """Whether lines are for programs."""
        return self.log_format is LogFormat.JSON

    def environment(self) -> dict[str, str]:
        """Variables that tell another process the same."""
        return {
            LEVEL_VARIABLE: self.log_level.value,
            FORMAT_VARIABLE: self.log_format.value,
            FILE_VARIABLE: str(self.log_file or ""),
            MAX_BYTES_VARIABLE: str(self.log_max_bytes),
            BACKUPS_VARIABLE: str(self.log_backups),
        }

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self:
        """The other side of :meth:`environment`."""
        file = environ.get(FILE_VARIABLE)
        return cls(
            log_level=LogLevel(environ[LEVEL_VARIABLE]),
            log_format=LogFormat(environ[FORMAT_VARIABLE]),
            log_file=Path(file) if file else None,
            log_max_bytes=int(environ[MAX_BYTES_VARIABLE]),
            log_backups=int(environ[BACKUPS_VARIABLE]),
        )
