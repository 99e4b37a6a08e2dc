"""What every driver of a run serves: one model with one set of engine arguments."""

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
HEADROOM: Final = 0.05
"""Jobs in flight above the engine's slots, as in ``worker.concurrency_headroom``."""
DEFAULT_SLOTS: Final = {"vllm": 256, "simulated": 256}


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
    given = {name.removeprefix(OPTION_PREFIX): v for name, v in wanted.settings.items() if _is_option(name)}
    others = {name: value for name, value in wanted.settings.items() if not _is_option(name)}
    if wanted.engine == "simulated":
        if wanted.model or wanted.shape:
            raise BenchError("the simulated engine has no model: leave --model and --shape out")
        options = {"max_num_seqs": DEFAULT_SLOTS["simulated"]} | given
        return EngineTarget("simulated", "sim", "sim", options, others)
    if wanted.engine != "vllm":
        raise BenchError(f"--engine {wanted.engine}: vllm or simulated")
    if wanted.model and wanted.shape:
        raise BenchError("give --model or --shape, not both")
    defaults: dict[str, Any] = {"max_num_seqs": DEFAULT_SLOTS["vllm"]}
    model = wanted.model
    if model is None:
        made, shape_options = model_folder(wanted.shape or "tiny", folder)
        model, defaults = str(made), defaults | shape_options
    gpus = present_gpus(os.environ)
    options = defaults | given
    if not gpus:
        options = with_cpu_defaults(options, os.environ, psutil.virtual_memory().available)
    served = Path(model).resolve().name if Path(model).is_dir() else model
    return EngineTarget("vllm", model, served, options, others, gpus[0] if gpus else "none")


def _is_option(name: str) -> bool:
    return name.startswith(OPTION_PREFIX)
