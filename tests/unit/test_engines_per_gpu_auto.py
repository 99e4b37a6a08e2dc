"""``--engines-per-gpu auto``: when it measures, when it does not, and what it falls back to."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.errors import SettingsError
from config.settings import EngineSettings, ModelSettings, Settings, WorkerSettings
from workers.calibration.choice import CalibrationFailed, Choice
from workers.commands import engines_per_gpu as command
from workers.commands.engines_per_gpu import Given, engines_per_gpu
from workers.commands.worker import WorkerOptions

Calibrate = Callable[[Given, Sequence[str]], Choice]


def given(folder: Path, engines: object = "auto", gpus_per_engine: int = 1, model: str = "m") -> Given:
    """A worker on the CPU, with this setting."""
    settings = Settings(
        model=ModelSettings(name=model),
        engine=EngineSettings(kind="simulated"),
        worker=WorkerSettings(gpus="none", engines_per_gpu=engines, calibration_folder=str(folder)),
    )
    return Given(settings, None, {}, (), gpus_per_engine)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was calibrated; each time two engines are worth it."""
    made: list[Any] = []

    def calibrated(asked: Given, gpus: Sequence[str]) -> Choice:
        made.append((asked.settings.model.name, tuple(gpus)))
        return Choice(engines_per_gpu=2, reason="test", measured=(), chosen_at=datetime.now(UTC))

    monkeypatch.setattr(command, "_calibrated", calibrated)
    monkeypatch.setattr(command, "usable_cores", lambda: ["one", "two"])
    return made


def test_a_number_is_taken_as_it_is(tmp_path: Path, calls: list[Any]) -> None:
    """Nothing is measured, and nothing kept."""
    assert engines_per_gpu(given(tmp_path, 3), is_forced=False) == 3
    assert calls == []


def test_auto_measures_once_per_model(tmp_path: Path, calls: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """The choice is on file then; another model is measured again."""
    with caplog.at_level(logging.INFO):
        assert [engines_per_gpu(given(tmp_path), is_forced=False) for _ in range(2)] == [2, 2]
    assert "2, as measured before" in caplog.text
    engines_per_gpu(given(tmp_path, model="another"), is_forced=False)
    assert calls == [("m", ()), ("another", ())]


def test_it_can_be_measured_anew(tmp_path: Path, calls: list[Any]) -> None:
    """Whatever is on file."""
    for is_forced in (False, True):
        engines_per_gpu(given(tmp_path), is_forced=is_forced)
    assert len(calls) == 2


def test_a_failed_calibration_means_one_engine_and_is_not_kept(
    tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said as a warning with the reason; the next start tries again."""

    def failing(*_: object) -> Choice:
        raise CalibrationFailed("the driver is on holiday")

    with monkeypatch.context() as patch:
        patch.setattr(command, "_calibrated", failing)
        assert engines_per_gpu(given(tmp_path), is_forced=False) == 1
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "1, since calibration failed: the driver is on holiday" in record.getMessage()
    assert engines_per_gpu(given(tmp_path), is_forced=False) == 2
    assert len(calls) == 1


def test_an_engine_over_several_gpus_is_not_measured(tmp_path: Path, calls: list[Any]) -> None:
    """It has them to itself."""
    assert engines_per_gpu(given(tmp_path, gpus_per_engine=2), is_forced=True) == 1
    assert calls == []


def test_a_cpu_with_one_core_is_not_measured(tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each engine needs a core of its own."""
    monkeypatch.setattr(command, "usable_cores", lambda: ["one"])
    assert engines_per_gpu(given(tmp_path), is_forced=False) == 1
    assert calls == []


def test_a_choice_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, calls: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only home is no reason to measure for nothing."""
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO):
        assert engines_per_gpu(given(tmp_path / "file"), is_forced=False) == 2
    assert len(calls) == 1
    assert "set worker.calibration_folder" in caplog.text


def test_secrets_among_the_options_are_not_kept() -> None:
    """The file is for people to read."""
    settings = Settings(engine=EngineSettings(options={"hf_token": "hf_secret", "seed": 1}))
    assert command._subject(settings, ()).options == {"hf_token": "***", "seed": 1}


def test_calibrate_means_auto_and_contradicts_a_number() -> None:
    """On one command line; a number in the file is overruled."""
    assert WorkerOptions(calibrate=True).overrides() == {"worker.engines_per_gpu": "auto"}
    assert WorkerOptions(calibrate=True, engines_per_gpu="auto").overrides() == {"worker.engines_per_gpu": "auto"}
    with pytest.raises(SettingsError, match="leave 2 out"):
        WorkerOptions(calibrate=True, engines_per_gpu="2").overrides()
    assert WorkerOptions(engines_per_gpu="2").overrides() == {"worker.engines_per_gpu": "2"}


@pytest.mark.parametrize(("value", "expected"), [("auto", "auto"), (" AUTO ", "auto"), ("2", 2), (8, 8), ("1", 1)])
def test_the_setting_is_a_number_or_the_word(value: object, expected: object) -> None:
    """As the command line, the environment and a file say it."""
    assert WorkerSettings(engines_per_gpu=value).engines_per_gpu == expected


@pytest.mark.parametrize("value", [0, 9, "two", "", 1.5, True, None])
def test_anything_else_is_refused_with_what_to_write(value: object) -> None:
    """Once, not once per form that it might have had."""
    with pytest.raises(ValueError, match="write 1 to 8, or auto") as refused:
        WorkerSettings(engines_per_gpu=value)
    assert str(refused.value).count("is no number of engines") == 1
