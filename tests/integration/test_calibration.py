"""``--engines-per-gpu auto`` as its user runs it, with simulated engines that share a device."""

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.running import RunningFleet, simulated
from tests.waiting import eventually
from workers.exit_codes import EXIT_ENGINE


def fleet_on_one_gpu(redis_url: str, folder: Path, **engine_options: object) -> RunningFleet:
    """On a device that two engines fill."""
    shared = {"device_folder": str(folder / "device"), "device_engines": 2, "seconds_per_token": 0.005}
    fleet = simulated(redis_url, folder, **(shared | engine_options))
    fleet.options = dict(fleet.options) | {"worker.gpus": "0", "worker.calibration_folder": str(folder / "kept")}
    fleet.environ = {"CUDA_VISIBLE_DEVICES": "0"}
    fleet.arguments = ["--engines-per-gpu", "auto"]
    return fleet


def test_auto_measures_keeps_and_starts_as_many_engines_as_pay(redis_url: str, tmp_path: Path) -> None:
    """Two of three; the next start reads that from the file, and whoever changes the file is obeyed."""
    fleet = fleet_on_one_gpu(redis_url, tmp_path)
    fleet.workers = 2
    with fleet:
        assert len(fleet.worker_processes()) == 2
    [file] = (tmp_path / "kept").iterdir()
    kept = json.loads(file.read_text())
    assert kept["choice"]["engines_per_gpu"] == 2
    one, two, three = (measured["tokens_per_second"] for measured in kept["choice"]["measured"])
    assert two > 1.15 * one
    assert three < 1.15 * two
    assert "engines_per_gpu auto: 2 (output tokens/s by engines 1: " in fleet.log.read_text()
    assert list((tmp_path / "device").iterdir()) == []

    fleet.log.unlink()
    kept["choice"]["engines_per_gpu"] = 1
    file.write_text(json.dumps(kept))
    fleet.workers = 1
    with fleet:
        assert len(fleet.worker_processes()) == 1
    assert "1, as measured before" in fleet.log.read_text()
    assert "starting engine" not in fleet.log.read_text()


def test_engines_that_do_not_start_are_one_engine_with_a_warning(redis_url: str, tmp_path: Path) -> None:
    """Its own start then says why and ends the fleet; nothing is kept."""
    fleet = fleet_on_one_gpu(redis_url, tmp_path, start_fault="fails")
    fleet.start()
    assert fleet.process is not None
    assert fleet.process.wait(60) == EXIT_ENGINE
    assert "calibration failed: the simulated engine was told to fail" in fleet.log.read_text()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_calibration_and_its_engines(redis_url: str, tmp_path: Path, number: signal.Signals) -> None:
    """At once, though an engine would take an hour to start."""
    fleet = fleet_on_one_gpu(redis_url, tmp_path, start_seconds=3600)
    fleet.start()
    assert fleet.process is not None
    try:
        supervisor = psutil.Process(fleet.process.pid)
        eventually(lambda: "starting engine 1" in fleet.log.read_text(), what="it calibrates")
        eventually(supervisor.children, what="its first engine starts")
        engines = supervisor.children(recursive=True)
        fleet.process.send_signal(number)
        assert fleet.process.wait(20) == 0
        eventually(lambda: not any(engine.is_running() for engine in engines), what="nothing is left of it")
    finally:
        fleet.stop()
