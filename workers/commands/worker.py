"""``fleet worker``: the supervisor of one machine's worker processes."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.sources import parsed_option
from workers.exit_codes import EXIT_CONFIGURATION
from workers.logs import set_up_logging
from workers.placement import PlacementError, place, present_gpus
from workers.supervisor import OVERRIDES_VARIABLE, RestartPolicy, Supervisor, worker_command

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; without it fleet.toml, if there.")]
ModelOption = Annotated[str | None, typer.Option(help="Folder, or a name that the model hub knows.")]
ProfileOption = Annotated[str | None, typer.Option(help="Named profile (fleet config profiles), or a TOML file.")]
GpusOption = Annotated[str | None, typer.Option(help="auto, all, none, or ids with commas: one worker per engine.")]
RedisOption = Annotated[str | None, typer.Option("--redis-url", help="Overrides redis.url.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting: --set engine.options.max_num_seqs=64; may be repeated.")
]

_PARALLEL_OPTIONS: Final = ("tensor_parallel_size", "pipeline_parallel_size")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="worker")(worker)


def worker(
    model: ModelOption = None,
    gpus: GpusOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Serve one model with one worker process per engine, each on its own GPUs; restart what dies."""
    try:
        overrides = overrides_of({"model.name": model, "worker.gpus": gpus, "profile": profile}, settings)
        loaded = load_settings(config_file=config, environ=os.environ, overrides=overrides).settings
        set_up_logging(loaded.log.level)
        code = supervise(loaded, config, overrides)
    except (SettingsError, PlacementError) as error:
        typer.echo(f"fleet worker: {error}", err=True)
        code = EXIT_CONFIGURATION
    raise typer.Exit(code)


def supervise(settings: Settings, config: Path | None, overrides: dict[str, Any]) -> int:
    """Run the supervisor until a signal; its exit code.

    Raises:
        SettingsError: no model is named.
        PlacementError: the GPUs do not fit.
    """
    if not settings.model.served_as:
        raise SettingsError("no model: name one with --model, FLEET_MODEL, or model.name in fleet.toml")
    slots = place(settings.worker.gpus, present_gpus(os.environ), gpus_per_engine(settings.engine.options))
    file = ["--config", str(config)] if config is not None else []
    with tempfile.TemporaryDirectory(prefix="fleet-") as run_folder:
        return Supervisor(
            command=worker_command(file),
            slots=slots,
            policy=RestartPolicy(
                settings.worker.restart_backoff_initial_seconds,
                settings.worker.restart_backoff_max_seconds,
                settings.worker.max_failed_starts,
            ),
            drain_timeout_seconds=settings.worker.drain_timeout_seconds,
            # In the environment and not on the command line: ps shows that, and there may be a password in it.
            environ=os.environ | {OVERRIDES_VARIABLE: json.dumps(overrides)},
            run_folder=run_folder,
        ).run()


def gpus_per_engine(options: Any) -> int:  # noqa: ANN401 - vLLM's own option values
    """GPUs that one engine takes, from vLLM's parallelism options."""
    product = 1
    for name in _PARALLEL_OPTIONS:
        value = options.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise SettingsError(f"engine.options.{name} must be a whole number of GPUs, not {value!r}")
        product *= value
    return product


def overrides_of(options: Mapping[str, Any], settings: Sequence[str] | None) -> dict[str, Any]:
    """The command line's settings by dotted name: the options that were given, then ``--set``, which wins."""
    return {name: value for name, value in options.items() if value is not None} | parse_settings(settings or ())


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """``name=value`` pairs; a value that is JSON is read as JSON, anything else is text."""
    parsed: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {pair}: write it as name=value, e.g. --set worker.batch_max_jobs=32")
        parsed[name] = parsed_option(value)
    return parsed
