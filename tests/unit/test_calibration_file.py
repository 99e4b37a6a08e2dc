"""Where a choice is kept, and when it holds."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from workers.calibration.choice import Choice, Measured
from workers.calibration.choice_file import Subject, config_digest, default_folder, keep, kept_choice

SUBJECT = Subject(
    engine="vllm",
    model="Qwen/Qwen3-0.6B",
    revision="",
    config_digest="",
    options={"max_num_seqs": 256, "compilation_config": {"level": 3}},
    refill_jobs=0,
    refill_max_wait_ms=500,
    vllm_version="0.26.0",
    device="NVIDIA H200",
    device_memory_bytes=150_000_000_000,
    cores=16,
)
CHOICE = Choice(
    engines_per_gpu=2,
    reason="3 engines make +5% of the total of 2, and 15% is asked for",
    measured=(Measured(engines=1, tokens_per_second=22_692.4), Measured(engines=2, tokens_per_second=37_703.0)),
    chosen_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """With every figure, in a file whose name tells the model; nothing else is left in the folder."""
    path = keep(tmp_path / "new" / "folder", SUBJECT, CHOICE)
    assert kept_choice(tmp_path / "new" / "folder", SUBJECT) == CHOICE
    assert path.name.startswith("engines-per-gpu-Qwen3-0.6B-")
    assert list(path.parent.iterdir()) == [path]
    assert CHOICE.figures == "output tokens/s by engines 1: 22,692, 2: 37,703"


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "simulated"},
        {"model": "Qwen/Qwen3-1.7B"},
        {"revision": "main"},
        {"config_digest": "1a"},
        {"options": {"max_num_seqs": 128, "compilation_config": {"level": 3}}},
        {"vllm_version": "0.32.0"},
        {"device": "NVIDIA L4"},
        {"device_memory_bytes": None},
        {"cores": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_choice_holds_for_nothing_else(tmp_path: Path, change: dict[str, object]) -> None:
    """Another model, option, version or device is measured again."""
    keep(tmp_path, SUBJECT, CHOICE)
    assert kept_choice(tmp_path, SUBJECT.model_copy(update=change)) is None


def test_the_order_of_options_does_not_matter() -> None:
    """The same options from a file and from a command line."""
    turned = dict(reversed(list(SUBJECT.options.items())))
    assert SUBJECT.model_copy(update={"options": turned}).file_name() == SUBJECT.file_name()


@pytest.mark.parametrize(
    "content", ["", "{", '{"choice": {"engines_per_gpu": 2}}', "[]"], ids=["empty", "cut", "incomplete", "other"]
)
def test_a_broken_file_counts_as_none_and_is_named(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is measured again, and written over."""
    path = keep(tmp_path, SUBJECT, CHOICE)
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert kept_choice(tmp_path, SUBJECT) is None
    assert f"{path} cannot be read" in caplog.text
    keep(tmp_path, SUBJECT, CHOICE)
    assert kept_choice(tmp_path, SUBJECT) == CHOICE


def test_a_number_that_cannot_be_is_no_choice(tmp_path: Path) -> None:
    """Whoever wrote it."""
    path = keep(tmp_path, SUBJECT, CHOICE)
    path.write_text(path.read_text().replace('"engines_per_gpu": 2', '"engines_per_gpu": 0'))
    assert kept_choice(tmp_path, SUBJECT) is None


def test_a_model_folder_is_known_by_its_config(tmp_path: Path) -> None:
    """Another model in the same folder is another model; a name of the hub has no folder."""
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    first = config_digest(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 128}')
    assert len(first) == 64
    assert config_digest(str(tmp_path)) not in ("", first)
    assert config_digest("Qwen/Qwen3-0.6B") == ""


def test_the_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG base directories have it."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder({}) == Path("/home/somebody/.cache/inference-fleet")
    assert default_folder({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/inference-fleet")
