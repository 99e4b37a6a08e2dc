"""``fleet doctor`` on a host that is to serve a model: the real command, real files, a driver that we wrote."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fake_driver import install_driver, install_program
from tests.running import ENGINE_ENVIRONMENT, FLEET, VLLM_OPTIONS
from tests.waiting import free_port
from workers.doctor.nvidia import MIB, DriverSilent, installed_gpus, processes

TINY = [
    part for name, value in VLLM_OPTIONS.items() for part in ("--set", f"engine.options.{name}={json.dumps(value)}")
]


def doctor(
    redis_url: str, folder: Path, *arguments: str, **variables: str
) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, findings by subject, standard error."""
    done = subprocess.run(
        [*FLEET, "doctor", "--json", "--set", f"metrics.port={free_port()}", *arguments],
        env=os.environ | ENGINE_ENVIRONMENT | {"FLEET_REDIS_URL": redis_url} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    findings = json.loads(done.stdout)["findings"] if done.stdout else []
    return done.returncode, {finding["subject"]: finding for finding in findings}, done.stderr


def test_gpus_and_processes_are_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By nvidia-smi's own output."""
    monkeypatch.setenv("PATH", str(install_driver(tmp_path / "bin")), prepend=os.pathsep)
    [gpu] = installed_gpus() or []
    assert (gpu.name, gpu.driver, gpu.compute_capability) == ("NVIDIA H100 80GB HBM3", "580.82.07", (9, 0))
    assert (gpu.total_bytes, gpu.free_bytes) == (81559 * MIB, (81559 - 30720) * MIB)
    [process] = processes()
    assert (process.pid, process.name, process.used_bytes) == ("4711", "/usr/bin/python3", 30714 * MIB)


def test_a_driver_that_fails_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update without a reboot; a host without the program has no driver."""
    script = "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n"
    monkeypatch.setenv("PATH", str(install_program(tmp_path / "bin", script)), prepend=os.pathsep)
    with pytest.raises(DriverSilent, match="Driver/library version mismatch"):
        installed_gpus()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_gpus() is None


def test_a_simulated_fleet_needs_neither_engine_nor_model(redis_url: str, tmp_path: Path) -> None:
    """The host's own limits are looked at, and Redis; all is JSON."""
    code, found, errors = doctor(redis_url, tmp_path, "--set", "engine.kind=simulated")
    assert (code, errors) == (0, "")
    assert {"reachable", "latency", "shared memory", "open files", "cores"} <= set(found)
    assert not {"engine", "vllm import", "model"} & set(found)


def test_gpus_that_do_not_divide_into_engines_fail(redis_url: str, tmp_path: Path) -> None:
    """One GPU, and an engine that is to have two."""
    path = f"{install_driver(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    options = ["--set", "engine.kind=simulated", "--set", "engine.options.tensor_parallel_size=2"]
    code, found, _ = doctor(redis_url, tmp_path, *options, PATH=path)
    assert code == 1
    assert found["gpus"]["level"] == "refused"
    assert "name a multiple of 2 with --gpus" in found["gpus"]["sentence"]


@pytest.mark.vllm
def test_a_host_with_a_gpu_and_a_cpu_build(redis_url: str, tmp_path: Path, tiny_model: Path) -> None:
    """Each finding says what to do; nothing fails, so the exit code is 0. vLLM is imported."""
    path = f"{install_driver(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    code, found, errors = doctor(redis_url, tmp_path, "--model", str(tiny_model), PATH=path)
    assert (code, errors) == (0, "")
    assert found["vllm import"]["level"] == "ok"
    assert found["torch"]["level"] == "warning"
    assert "the GPUs here stay idle; FLEET_ACCELERATOR=gpu scripts/install.sh" in found["torch"]["sentence"]
    assert found["gpus"]["sentence"] == "none that is used: engines run on the CPU"
    assert not {"driver", "gpu 0", "gpu 0 memory"} & set(found)
    assert found["model"]["level"] == found["memory"]["level"] == "ok"


@pytest.mark.vllm
def test_generate_answers_with_the_real_engine(redis_url: str, tmp_path: Path, tiny_model: Path) -> None:
    """In a process of its own, of which nothing is left."""
    code, found, errors = doctor(redis_url, tmp_path, "--model", str(tiny_model), "--generate", *TINY)
    assert (code, errors) == (0, "")
    assert found["generation"]["level"] == "ok"
    assert found["generation"]["sentence"].startswith("16 tokens in ")


@pytest.mark.vllm
def test_a_generation_that_fails_says_why(redis_url: str, tmp_path: Path, tiny_model: Path) -> None:
    """An option that vLLM does not know."""
    option = ["--set", "engine.options.max_num_sequences=4"]
    code, found, _ = doctor(redis_url, tmp_path, "--model", str(tiny_model), "--generate", *option)
    assert code == 1
    assert found["generation"]["level"] == "refused"
    assert "max_num_seqs" in found["generation"]["sentence"]
