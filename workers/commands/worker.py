"""``fleet worker``: the supervisor of one machine's worker processes."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from producer.cli_options import takes
from workers.commands.fleet_options import ServeOptions
from workers.cpu_cores import usable_cores
from workers.exit_codes import EXIT_CONFIGURATION
from workers.logs import set_up_logging
from workers.placement import PlacementError, on_own_cores, place, present_gpus
from workers.supervisor import OVERRIDES_VARIABLE, RestartPolicy, Supervisor, worker_command

_PARALLEL_OPTIONS: Final = ("tensor_parallel_size", "pipeline_parallel_size")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="worker")(worker)


@takes(ServeOptions)
def worker(options: ServeOptions) -> None:
    """Serve one model with one worker process per engine, each on its own GPUs; restart what dies."""
    try:
        overrides = options.overrides()
        loaded = load_settings(config_file=options.config, environ=os.environ, overrides=overrides).settings
        set_up_logging(loaded.log.level)
        code = supervise(loaded, options.config, overrides)
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
    slots = place(
        settings.worker.gpus,
        present_gpus(os.environ),
        gpus_per_engine(settings.engine.options),
        settings.worker.engines_per_gpu,
    )
    file = ["--config", str(config)] if config is not None else []
    with tempfile.TemporaryDirectory(prefix="fleet-") as run_folder:
        return Supervisor(
            command=worker_command(file),
            slots=on_own_cores(slots, usable_cores()),
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
