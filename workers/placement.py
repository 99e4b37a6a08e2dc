"""Which GPUs which worker process gets, decided before anything imports torch."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class PlacementError(Exception):
    """The GPUs asked for do not fit; the message says what would."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker process: its number and its GPUs (none: it runs on the CPU)."""

    index: int
    gpus: tuple[str, ...]

    @property
    def visible_devices(self) -> str:
        """The value of ``CUDA_VISIBLE_DEVICES``."""
        return ",".join(self.gpus)


def place(wanted: str, present: Sequence[str], gpus_per_engine: int) -> list[Slot]:
    """One slot per engine.

    Args:
        wanted: ``auto`` (all GPUs there are, or the CPU), ``all``, ``none``, or ids separated by commas.
        present: ids of the GPUs that may be used.
        gpus_per_engine: ``tensor_parallel_size`` times ``pipeline_parallel_size``.

    Raises:
        PlacementError: an id is not there, is named twice, or the GPUs do not divide into engines.
    """
    match wanted.strip():
        case "none":
            chosen: list[str] = []
        case "auto":
            chosen = list(present)
        case "all":
            if not present:
                raise PlacementError("--gpus all: nvidia-smi shows no GPU on this machine; use --gpus none for the CPU")
            chosen = list(present)
        case listed:
            chosen = [gpu.strip() for gpu in listed.split(",")]
            _check_listed(chosen, present)
    if not chosen:
        return [Slot(0, ())]
    if len(chosen) % gpus_per_engine:
        raise PlacementError(
            f"{len(chosen)} GPUs do not divide into engines of {gpus_per_engine} (tensor_parallel_size); "
            f"name a multiple of {gpus_per_engine} with --gpus"
        )
    groups = [tuple(chosen[at : at + gpus_per_engine]) for at in range(0, len(chosen), gpus_per_engine)]
    return [Slot(index, group) for index, group in enumerate(groups)]


def _check_listed(chosen: Sequence[str], present: Sequence[str]) -> None:
    if len(set(chosen)) != len(chosen):
        raise PlacementError(f"--gpus names a GPU twice: {', '.join(chosen)}")
    # A machine whose driver cannot be asked (no nvidia-smi) takes what it is told: the engine will know.
    missing = [gpu for gpu in chosen if gpu.isdigit() and present and gpu not in present]
    if missing:
        raise PlacementError(f"--gpus {','.join(missing)}: this machine has {', '.join(present)}")


def present_gpus(environ: Mapping[str, str]) -> list[str]:
    """Ids of the GPUs that this process may use: ``CUDA_VISIBLE_DEVICES`` where set, else what nvidia-smi lists."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() and gpu.strip() != "-1"]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],  # noqa: S607 - wherever the driver put it
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []  # no driver here: a machine without GPUs
    return listing.stdout.split()
