"""``fleet worker``: the supervisor of one machine's worker processes."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.variables import variables
from producer.cli_options import takes
from producer.errors import InvalidRequest
from producer.logs.options import LogOptions
from producer.logs.setting_up import set_up_logging
from workers.builds import gpus_for_build, installed_versions
from workers.commands.engines_per_gpu import Given, engines_per_gpu
from workers.commands.fleet_options import ENGINES_PER_GPU, ServeOptions
from workers.cpu_cores import usable_cores
from workers.exit_codes import EXIT_CONFIGURATION
from workers.logs import last_words
from workers.output import output_of
from workers.placement import (
    PlacementError,
    on_own_cores,
    place,
    present_gpus,
    with_interactive,
    with_less_for_others,
    with_yielding,
)
from workers.supervisor import RestartPolicy, Supervisor, worker_command

_PARALLEL_OPTIONS: Final = ("tensor_parallel_size", "pipeline_parallel_size")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="worker")(worker)


@dataclass(frozen=True, slots=True)
class WorkerOptions(ServeOptions):
    """What ``fleet worker`` takes."""

    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure anew how many engines share a GPU (--engines-per-gpu auto).")
    ] = False

    def overrides(self) -> dict[str, Any]:
        """As :meth:`FleetOptions.overrides`; calibrating means ``auto``.

        Raises:
            SettingsError: a number of engines was given too.
        """
        # The decorator's slots=True makes another class, so super() without arguments would not find it.
        given = ServeOptions.overrides(self)
        if not self.calibrate:
            return given
        wanted = given.get(ENGINES_PER_GPU, "auto")
        if wanted != "auto":
            raise SettingsError(f"--calibrate finds out how many engines share a GPU: leave {wanted} out, or say auto")
        return given | {ENGINES_PER_GPU: "auto"}


@takes(WorkerOptions)
def worker(options: WorkerOptions) -> None:
    """Serve one model with one worker process per engine, each on its own GPUs; restart what dies."""
    try:
        given = _given(options)
        set_up_logging(_log_options(given.settings), "supervisor", file="worker", model=given.settings.model.served_as)
        code = supervise(given, engines_per_gpu(given, is_forced=options.calibrate))
    except (SettingsError, PlacementError, InvalidRequest) as error:
        last_words(f"fleet worker: {error}")
        code = EXIT_CONFIGURATION
    raise typer.Exit(code)


def _given(options: WorkerOptions) -> Given:
    """Settings and machine.

    Raises:
        SettingsError: a setting is refused, or no model is named.
        PlacementError: the engine that is installed does not fit to this machine.
    """
    overrides = options.overrides()
    loaded = load_settings(config_file=options.config, environ=os.environ, overrides=overrides).settings
    if not loaded.model.served_as:
        raise SettingsError("no model: name one with --model, FLEET_MODEL, or model.name in fleet.toml")
    gpus: Sequence[str] = present_gpus(os.environ)
    if loaded.engine.kind == "vllm":
        gpus = gpus_for_build(loaded.worker.gpus, gpus, installed_versions())
    return Given(
        settings=loaded,
        config=options.config,
        overrides=overrides,
        present_gpus=gpus,
        gpus_per_engine=gpus_per_engine(loaded.engine.options),
        output=output_of(_log_options(loaded)),
    )


def _log_options(settings: Settings) -> LogOptions:
    return LogOptions.of_environment(variables(settings, "log"))


def supervise(given: Given, engines: int) -> int:
    """Run the supervisor, with so many engines per GPU, until a signal; its exit code.

    Raises:
        PlacementError: the GPUs do not fit.
    """
    settings = given.settings.worker
    slots = place(settings.gpus, given.present_gpus, given.gpus_per_engine, engines)
    slots = with_interactive(slots, settings.interactive_engines)
    slots = with_less_for_others(slots, settings.others_active_thread_percentage)
    with tempfile.TemporaryDirectory(prefix="fleet-") as run_folder:
        if settings.others_yield:
            slots = with_yielding(slots, Path(run_folder))
        return Supervisor(
            command=worker_command(given.arguments),
            slots=on_own_cores(slots, usable_cores()),
            policy=RestartPolicy(
                settings.restart_backoff_initial_seconds,
                settings.restart_backoff_max_seconds,
                settings.max_failed_starts,
            ),
            drain_timeout_seconds=settings.drain_timeout_seconds,
            environ=given.environ,
            run_folder=run_folder,
            output=given.output,
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
