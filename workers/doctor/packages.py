"""Whether vLLM's and torch's builds fit together and to the GPUs; and whether vLLM can be imported."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from producer.doctor import Finding
from workers.builds import COMPANIONS, engines_of, is_cpu_build
from workers.doctor.nvidia import Gpu
from workers.doctor.plan import doubtful, failing, fine

OLDEST_DRIVERS: Final[Mapping[str, int]] = {"cu13": 580, "cu12": 525}
"""NVIDIA's least driver branch for any CUDA of that major version."""
IMPORT_SECONDS: Final = 180.0
_IMPORT: Final = "from vllm.engine.arg_utils import AsyncEngineArgs"


def package_findings(versions: Mapping[str, str], gpus: list[Gpu] | None) -> Iterator[Finding]:
    """What fits together, and what does not; nothing is imported."""
    engines = engines_of(versions)
    if not engines:
        yield doubtful(
            "engine",
            "vLLM is not installed here: no worker can run, though the gateway, Flower and every other command can; "
            "run scripts/install.sh, or use the image cpu or gpu",
        )
        return
    if len(engines) > 1:
        yield failing("engine", f"{' and '.join(engines)} are both the package vllm: uninstall both, install one")
    else:
        yield fine("engine", engines[0])
    yield _torch(versions, gpus)
    yield _companions(versions)


def _torch(versions: Mapping[str, str], gpus: list[Gpu] | None) -> Finding:
    build = versions.get("torch", "")
    local = build.partition("+")[2]
    if not build:
        return failing("torch", "not installed: run scripts/install.sh")
    if is_cpu_build(versions):
        if gpus:
            return doubtful(
                "torch",
                f"{build} with vLLM's CPU build: the GPUs here stay idle; FLEET_ACCELERATOR=gpu scripts/install.sh",
            )
        return fine("torch", f"{build}, on the CPU")
    if not gpus:
        return failing(
            "torch", f"{build} needs a GPU, and none is seen: FLEET_ACCELERATOR=cpu scripts/install.sh, or give it one"
        )
    branch = int(gpus[0].driver.partition(".")[0] or 0) if gpus[0].driver[:1].isdigit() else 0
    least = next((least for cuda, least in OLDEST_DRIVERS.items() if local.startswith(cuda)), 0)
    if branch and branch < least:
        return failing(
            "torch", f"{build} needs driver {least} or later, and {gpus[0].driver} is here: update the driver"
        )
    return fine("torch", build)


def _companions(versions: Mapping[str, str]) -> Finding:
    build = versions.get("torch", "").partition("+")[2]
    others = {name: versions[name] for name in COMPANIONS if name in versions}
    # A version without a local part is the package index's, which is built for CUDA.
    foreign = [f"{name} {found}" for name, found in others.items() if build == "cpu" and not found.endswith("+cpu")]
    if foreign:
        return failing(
            "companions",
            f"{', '.join(foreign)} beside torch+cpu break vLLM's import (operator torchvision::nms does not exist); "
            f"text needs none of them: pip uninstall --yes {' '.join(others)}",
        )
    return fine("companions", ", ".join(f"{name} {found}" for name, found in others.items()) or "none, none needed")


def import_finding() -> Finding:
    """Import vLLM in a process of its own: it takes seconds, memory, and whatever it breaks with it."""
    command = [sys.executable, "-c", _IMPORT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return doubtful(
            "vllm import", f"not done after {IMPORT_SECONDS:g} s: is the disk slow, or the CPU taken? run it again"
        )
    if done.returncode:
        last = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}"
        )
        return failing("vllm import", f"{last.strip()}; install it anew: rm -r .venv && scripts/install.sh")
    return fine("vllm import", "works")
