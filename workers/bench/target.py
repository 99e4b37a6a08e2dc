"""What every driver of a run serves: one model with one set of engine arguments."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from workers.bench.shapes import model_folder
from workers.cpu_defaults import with_cpu_defaults
from workers.placement import present_gpus

OPTION_PREFIX: Final = "engine.options."
HEADROOM: Final = 0.25
"""Jobs in flight above the engine's slots: with 5 % an engine whose front end is busy runs out of jobs now and then."""
DEFAULT_SLOTS: Final = 256


class BenchError(Exception):
    """A bench cannot be run as asked, or a driver failed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """Model, engine options and the fleet's other settings."""

    kind: Literal["vllm", "simulated"]
    model: str
    """A folder, or a name that the model hub knows."""
    served: str
    """The name that jobs use."""
    options: dict[str, Any]
    """Engine options under vLLM's names, complete: no driver adds any."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the fleet by dotted name that are not engine options; only the fleet's driver knows them."""
    gpu: str = "none"
    """Index of the one GPU that is used, or ``none``."""

    @property
    def slots(self) -> int:
        """Sequences that the engine runs together."""
        return int(self.options["max_num_seqs"])

    @property
    def slots_and_headroom(self) -> int:
        """The window that keeps an engine full, for those who call it directly."""
        return self.slots + max(1, int(self.slots * HEADROOM))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line said of the target."""

    engine: str = "vllm"
    model: str | None = None
    shape: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name, from ``--set``."""


def target_of(wanted: Wanted, folder: Path) -> EngineTarget:
    """The target; shapes are made under ``folder``.

    Raises:
        BenchError: what was wanted contradicts itself.
    """
    if wanted.engine == "simulated":
        if wanted.model or wanted.shape:
            raise BenchError("the simulated engine has no model: leave --model and --shape out")
        plain = EngineTarget("simulated", "sim", "sim", {"max_num_seqs": DEFAULT_SLOTS})
        return with_settings(plain, wanted.settings)
    if wanted.engine != "vllm":
        raise BenchError(f"--engine {wanted.engine}: vllm or simulated")
    if wanted.model and wanted.shape:
        raise BenchError("give --model or --shape, not both")
    options: dict[str, Any] = {"max_num_seqs": DEFAULT_SLOTS}
    model = wanted.model
    if model is None:
        made, shape_options = model_folder(wanted.shape or "tiny", folder)
        model, options = str(made), options | shape_options
    gpus = present_gpus(os.environ)
    folder_name = Path(model).resolve()
    if folder_name.is_dir():
        model = str(folder_name)
    served = folder_name.name if folder_name.is_dir() else model
    target = with_settings(EngineTarget("vllm", model, served, options), wanted.settings)
    if gpus:
        return dataclasses.replace(target, gpu=gpus[0])
    with_defaults = with_cpu_defaults(target.options, os.environ, psutil.virtual_memory().available)
    return dataclasses.replace(target, options=with_defaults)


def with_settings(target: EngineTarget, settings: Mapping[str, Any]) -> EngineTarget:
    """The target with these settings, by dotted name, over its own."""
    options = {name.removeprefix(OPTION_PREFIX): v for name, v in settings.items() if name.startswith(OPTION_PREFIX)}
    others = {name: value for name, value in settings.items() if not name.startswith(OPTION_PREFIX)}
    return dataclasses.replace(target, options=target.options | options, settings=target.settings | others)
