"""Which GPUs which worker process gets, decided before anything imports torch."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from workers.cpu_cores import Core, split
from workers.first_tokens import ALONE, FirstTokens, create

WHOLE_PERCENTAGE: Final = 100
THREAD_PERCENTAGE_VARIABLE: Final = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
"""CUDA's own, read when a process first uses the GPU: what it may use of its multiprocessors, under NVIDIA's
Multi-Process Service (https://docs.nvidia.com/deploy/mps/)."""
MEMORY_NODES_VARIABLE: Final = "CPU_VISIBLE_MEMORY_NODES"
"""vLLM's own: the memory nodes whose cores its CPU build uses."""


class PlacementError(Exception):
    """The GPUs asked for do not fit; the message says what would."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker process: its number and its GPUs (none: it runs on the CPU)."""

    index: int
    gpus: tuple[str, ...]
    engines_on_device: int = 1
    """How many slots share this GPU, or this machine's CPU."""
    cores: tuple[Core, ...] = ()
    """The cores that it keeps to; none named: all of them."""
    lanes: str = ""
    """What it takes jobs from, as ``worker.lanes``; empty: what that says."""
    active_thread_percentage: int = WHOLE_PERCENTAGE
    """What it uses of its GPU's multiprocessors at most."""
    first_tokens: FirstTokens = ALONE
    """Where it tells of first tokens that it owes, or reads of those that it yields to."""

    @property
    def visible_devices(self) -> str:
        """The value of ``CUDA_VISIBLE_DEVICES``."""
        return ",".join(self.gpus)

    def shares_gpu_with(self, other: "Slot") -> bool:
        """Whether both are on one GPU."""
        return not set(self.gpus).isdisjoint(other.gpus)

    def shares_device_with(self, other: "Slot") -> bool:
        """Whether both are on one GPU, or on the CPU."""
        return self.shares_gpu_with(other) or not (self.gpus or other.gpus)

    @property
    def place_name(self) -> str:
        """Where it runs, for people."""
        return f"GPU {self.visible_devices}" if self.gpus else "the CPU"

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of its process: set before the process exists, so before it can import torch."""
        own = dict(environ)
        own["CUDA_VISIBLE_DEVICES"] = self.visible_devices
        own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the ids mean what nvidia-smi shows
        if self.cores:
            # vLLM's CPU build takes its cores from the first memory node that it sees, wherever its own cores are.
            own.setdefault(MEMORY_NODES_VARIABLE, str(self.cores[0].memory_node))
        if self.active_thread_percentage < WHOLE_PERCENTAGE:
            own[THREAD_PERCENTAGE_VARIABLE] = str(self.active_thread_percentage)
        own["SPT_NOENV"] = "1"  # a process title must not be written over the environment that /proc shows
        return own

    def arguments(self) -> list[str]:
        """What its process must know of the engines beside its own."""
        cores = ["--cores", ",".join(str(core.cpu) for core in self.cores)] if self.cores else []
        shared = ["--engines-on-device", str(self.engines_on_device)] if self.engines_on_device > 1 else []
        lanes = ["--lanes", self.lanes] if self.lanes else []
        announced = self.first_tokens.announced_in
        told = ["--announce-first-tokens", str(announced)] if announced else []
        read = [word for file in self.first_tokens.yielded_to for word in ("--yield-to", str(file))]
        return [*cores, *shared, *lanes, *told, *read]


def place(wanted: str, present: Sequence[str], gpus_per_engine: int, engines_per_gpu: int = 1) -> list[Slot]:
    """One slot per engine: first one on each device, then the second on each, so that numbers do not depend on N.

    Args:
        wanted: ``auto`` (all GPUs there are, or the CPU), ``all``, ``none``, or ids separated by commas.
        present: ids of the GPUs that may be used.
        gpus_per_engine: ``tensor_parallel_size`` times ``pipeline_parallel_size``.
        engines_per_gpu: engines that share each GPU, or the CPU where no GPU is used.

    Raises:
        PlacementError: an id is not there, is named twice, or the GPUs do not divide into engines.
    """
    if gpus_per_engine > 1 and engines_per_gpu > 1:
        raise PlacementError(
            f"engines_per_gpu {engines_per_gpu} with tensor_parallel_size {gpus_per_engine}: an engine over several "
            "GPUs has them to itself; use --engines-per-gpu 1, or one GPU per engine"
        )
    devices = _devices(wanted, present, gpus_per_engine)
    shared = devices * engines_per_gpu
    return [Slot(index, gpus, engines_per_gpu) for index, gpus in enumerate(shared)]


def on_own_cores(slots: Sequence[Slot], cores: Sequence[Core]) -> list[Slot]:
    """The slots, each on cores of its own where several are on the CPU; others as they are.

    Raises:
        PlacementError: there are fewer cores than engines.
    """
    if len(slots) == 1 or any(slot.gpus for slot in slots):
        return list(slots)
    if len(cores) < len(slots):
        raise PlacementError(
            f"{len(slots)} engines on a CPU with {len(cores)} cores: each needs one; "
            f"use --engines-per-gpu {len(cores)} at most"
        )
    parts = split(cores, len(slots))
    return [replace(slot, cores=part) for slot, part in zip(slots, parts, strict=True)]


def with_interactive(slots: Sequence[Slot], interactive_engines: int) -> list[Slot]:
    """The slots, the last so many for interactive jobs alone and the others for all else; 0 leaves them as they are.

    Raises:
        PlacementError: no engine would be left for other jobs.
    """
    if not interactive_engines:
        return list(slots)
    others = len(slots) - interactive_engines
    if others < 1:
        raise PlacementError(
            f"worker.interactive_engines {interactive_engines} of {len(slots)}: no engine is left for other jobs; "
            "set fewer, or worker.lanes to interactive where other machines serve the rest"
        )
    return [replace(slot, lanes="others" if place < others else "interactive") for place, slot in enumerate(slots)]


def with_less_for_others(slots: Sequence[Slot], percentage: int) -> list[Slot]:
    """The slots; those that share their GPU with interactive ones use at most this much of it. 100: as they are.

    Raises:
        PlacementError: no slot shares its GPU so, or the service that sees to it does not run.
    """
    if percentage == WHOLE_PERCENTAGE:
        return list(slots)
    interactive = [slot for slot in slots if slot.lanes == "interactive"]
    limited = [
        replace(slot, active_thread_percentage=percentage)
        if slot.lanes == "others" and any(slot.shares_gpu_with(other) for other in interactive)
        else slot
        for slot in slots
    ]
    if limited == list(slots):
        raise _nothing_shared(f"worker.others_active_thread_percentage {percentage}", "leave it at 100")
    if not _has_mps():
        raise PlacementError(
            f"worker.others_active_thread_percentage {percentage} needs NVIDIA's MPS daemon, which does not answer: "
            "start it with 'nvidia-cuda-mps-control -d' (with the worker's CUDA_MPS_PIPE_DIRECTORY, if any), or "
            "leave the setting at 100"
        )
    return limited


def with_yielding(slots: Sequence[Slot], folder: Path) -> list[Slot]:
    """The slots; those that share a device with interactive ones yield to them, through files in this folder.

    Raises:
        PlacementError: none does.
    """
    files = {slot: folder / f"first-tokens-{slot.index}" for slot in slots if slot.lanes == "interactive"}
    yielding = []
    for slot in slots:
        beside = tuple(file for other, file in files.items() if slot.shares_device_with(other))
        own = FirstTokens(announced_in=files[slot]) if slot in files else FirstTokens(yielded_to=beside)
        yielding.append(replace(slot, first_tokens=own))
    if not any(slot.first_tokens.yielded_to for slot in yielding):
        raise _nothing_shared("worker.others_yield", "leave it out")
    for file in files.values():
        create(file)
    return yielding


def _nothing_shared(setting: str, otherwise: str) -> PlacementError:
    return PlacementError(
        f"{setting}: no GPU is shared by interactive and other engines; set worker.interactive_engines and "
        f"--engines-per-gpu too, or {otherwise}"
    )


def _has_mps() -> bool:
    try:
        asked = subprocess.run(
            ["nvidia-cuda-mps-control"],  # noqa: S607 - wherever the driver put it
            input="get_server_list\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False  # not installed, or it hangs
    return asked.returncode == 0


def _devices(wanted: str, present: Sequence[str], gpus_per_engine: int) -> list[tuple[str, ...]]:
    """The GPUs of each engine, were each to have its own; no GPUs for the CPU."""
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
        return [()]
    if len(chosen) % gpus_per_engine:
        raise PlacementError(
            f"{len(chosen)} GPUs do not divide into engines of {gpus_per_engine} (tensor_parallel_size); "
            f"name a multiple of {gpus_per_engine} with --gpus"
        )
    return [tuple(chosen[at : at + gpus_per_engine]) for at in range(0, len(chosen), gpus_per_engine)]


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
