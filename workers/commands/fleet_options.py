"""The command line's options that ``fleet worker``, ``fleet up`` and ``fleet demo`` have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from config.errors import SettingsError
from config.sources import parsed_option

ENGINES_PER_GPU: Final = "worker.engines_per_gpu"
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; without it fleet.toml, if there.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting: --set engine.options.max_num_seqs=64; may be repeated.")
]
RedisOption = Annotated[str | None, typer.Option("--redis-url", help="Overrides redis.url.")]


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What is served, where, and any setting."""

    model: Annotated[str | None, typer.Option(help="Folder, or a name that the model hub knows.")] = None
    gpus: Annotated[
        str | None, typer.Option(help="auto, all, none, or ids with commas: one worker process per engine.")
    ] = None
    engines_per_gpu: Annotated[
        str | None, typer.Option(help="Engines that share each GPU and its memory: a number, or auto, measured.")
    ] = None
    profile: Annotated[str | None, typer.Option(help="Named profile (fleet config profiles), or a TOML file.")] = None
    settings: SetOption = None

    def overrides(self) -> dict[str, Any]:
        """The settings by dotted name: the options that were given, then ``--set``, which wins.

        Raises:
            SettingsError: a ``--set`` is not ``name=value``.
        """
        options = {
            "model.name": self.model,
            "worker.gpus": self.gpus,
            ENGINES_PER_GPU: self.engines_per_gpu,
            "profile": self.profile,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return given | parse_settings(self.settings or ())


@dataclass(frozen=True, slots=True)
class ServeOptions(FleetOptions):
    """What ``fleet worker`` and ``fleet up`` take."""

    config: ConfigOption = None


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """``name=value`` pairs; a value that is JSON is read as JSON, anything else is text.

    Raises:
        SettingsError: one is not such a pair.
    """
    parsed: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {pair}: write it as name=value, e.g. --set worker.batch_max_jobs=32")
        parsed[name] = parsed_option(value)
    return parsed
