"""Profiles: the packaged ones hold together, and users bring their own."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from config.errors import SettingsError
from config.loading import LoadedSettings, load_settings
from config.names import OPTIONS
from config.profile_files import profile_description, profile_names, profile_values
from config.reference import with_tables

PROFILES_FOLDER = Path(__file__).parents[2] / "config" / "profiles"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(profile: str) -> LoadedSettings:
    """Settings with this profile and nothing else."""
    return load_settings(config_file=None, environ={}, overrides={"profile": profile})


def test_purposes_and_sizes_are_packaged() -> None:
    """Three purposes, three sizes, and quantized."""
    assert profile_names() == (
        "awq-gptq",
        "large",
        "latency",
        "long-context",
        "medium",
        "quantized",
        "small",
        "throughput",
    )


@pytest.mark.parametrize("name", profile_names())
def test_packaged_profile_loads_and_differs_from_the_defaults(name: str) -> None:
    """Every value passes the bounds, and its source is the profile."""
    loaded = load(name)
    set_by_profile = {setting for setting, origin in loaded.origins.items() if origin == f"profile {name}"}
    assert set_by_profile == {value.name for value in profile_values(name)}
    assert "engine.options.max_num_seqs" in set_by_profile


@pytest.mark.parametrize("name", profile_names())
def test_packaged_profile_explains_every_value(name: str) -> None:
    """A comment stands above each value, and the profile has one line about itself."""
    lines = (PROFILES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f'description = "{profile_description(name)}"'
    values = [number for number, line in enumerate(lines) if " = " in line and not line.startswith(("#", "desc"))]
    assert all(lines[number - 1].startswith("# ") for number in values)
    assert len(values) == len(profile_values(name))


@pytest.mark.parametrize("name", profile_names())
def test_steps_of_a_profile_have_a_token_for_every_sequence(name: str) -> None:
    """The engine refuses fewer tokens per step than sequences."""
    options = load(name).settings.engine.options
    assert options["max_num_batched_tokens"] >= options["max_num_seqs"]


def test_large_takes_four_gpus_per_engine() -> None:
    """Its weights do not fit on one."""
    assert load("large").settings.engine.options["tensor_parallel_size"] == 4


@pytest.mark.vllm
@pytest.mark.parametrize("name", profile_names())
def test_options_of_a_profile_are_vllms_own(name: str) -> None:
    """Name and type of every engine option are those of the installed vLLM's AsyncEngineArgs."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    fields: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(AsyncEngineArgs)}
    options = load(name).settings.engine.options
    for option, value in options.items():
        assert option in fields, f"{OPTIONS}.{option}"
        adapter: TypeAdapter[Any] = TypeAdapter(fields[option])
        assert adapter.validate_python(value, strict=True) == value
    assert options.get("quantization") in (None, *QUANTIZATION_METHODS)


def test_users_own_profile_is_named_by_its_path(working_directory: Path) -> None:
    """It adds to the defaults like a packaged one; its description may be missing."""
    (working_directory / "mine.toml").write_text("[worker]\nbatch_max_jobs = 7", encoding="utf-8")
    loaded = load("./mine.toml")
    assert loaded.settings.worker.batch_max_jobs == 7
    assert loaded.settings.profile == "./mine.toml"
    assert loaded.origins["worker.batch_max_jobs"] == "profile ./mine.toml"


def test_profile_path_in_the_settings_file_starts_at_that_file(working_directory: Path) -> None:
    """A settings file and the profile beside it move together."""
    folder = working_directory / "etc"
    folder.mkdir()
    (folder / "fleet.toml").write_text("profile = 'mine.toml'", encoding="utf-8")
    (folder / "mine.toml").write_text("description = 'ours'\n[worker]\nbatch_max_jobs = 7", encoding="utf-8")
    loaded = load_settings(config_file=folder / "fleet.toml", environ={}, overrides={})
    assert loaded.settings.worker.batch_max_jobs == 7


def test_empty_profile_takes_the_files_profile_away() -> None:
    """The command line can choose none."""
    Path("fleet.toml").write_text("profile = 'small'", encoding="utf-8")
    assert load("").settings.engine.options == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[worker]\ngpu = 1", "profile mine.toml: unknown setting 'worker.gpu': did you mean 'worker.gpus'?"),
        ("profile = 'small'", "profile mine.toml: a profile cannot name another profile"),
        ("x", "profile mine.toml: is not TOML"),
        ("[worker]\nbatch_max_jobs = 0", "worker.batch_max_jobs (profile mine.toml): input should be"),
    ],
)
def test_profile_with_a_mistake_is_refused_by_name(content: str, message: str) -> None:
    """The message says which profile."""
    Path("mine.toml").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError) as refusal:
        load("mine.toml")
    assert message in str(refusal.value)


def test_unknown_profile_is_refused_with_the_nearest() -> None:
    """A typing error is no profile; a path that is not there is told as such."""
    with pytest.raises(SettingsError, match="unknown profile 'througput': did you mean 'throughput'"):
        load("througput")
    with pytest.raises(SettingsError, match=r"profile none/x\.toml: cannot be read: No such file"):
        load("none/x.toml")


def test_settings_page_is_in_step_with_the_code() -> None:
    """If it is not, write it anew: python -m config.reference docs/settings.md."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == with_tables(page)
