"""LoRA adapters: the setting, what an engine is told, and who is refused."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.loading import load_settings
from config.settings import ModelSettings
from producer.contract import FailureCode, GenerationRequest
from producer.flow import prefix_of
from workers.engine.adapters import adapter_options, refuse_unknown_adapter
from workers.engine.base import EngineOptionsInvalid, RequestRejected
from workers.models.tiny_adapter import make_tiny_adapter


@pytest.mark.parametrize("written", ["poet=/a, lawyer = /b", {"poet": "/a", "lawyer": "/b"}])
def test_the_setting_is_pairs_or_a_table(written: object) -> None:
    """Both are the same."""
    assert ModelSettings(lora_adapters=written).adapters == {"poet": "/a", "lawyer": "/b"}  # type: ignore[arg-type]
    assert ModelSettings().adapters == {}


def test_a_settings_file_has_a_table_of_them(tmp_path: Path) -> None:
    """As the documentation shows it."""
    file = tmp_path / "fleet.toml"
    file.write_text("[model]\nname = 'm'\n[model.lora_adapters]\npoet = '/a'\n", encoding="utf-8")
    settings = load_settings(config_file=file, environ={}, overrides={}).settings
    assert settings.model.adapters == {"poet": "/a"}


@pytest.mark.parametrize("written", ["poet", "poet=", "=/a", "poet=/a,poet=/b", "poet=/a,,"])
def test_what_is_no_pair_is_refused(written: str) -> None:
    """With what it should be."""
    with pytest.raises(ValidationError, match=r"name=folder|adapter twice"):
        ModelSettings(lora_adapters=written)


def adapter(folder: Path, **config: object) -> str:
    """A folder that looks like an adapter's."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").touch()
    return str(folder)


def test_an_engine_reserves_the_largest_rank_and_room_for_each(tmp_path: Path) -> None:
    """The next one that vLLM has; many adapters take turns."""
    assert adapter_options({}, {"seed": 1}) == {"seed": 1}
    two = {"a": adapter(tmp_path / "a", r=4), "b": adapter(tmp_path / "b", r=20)}
    assert adapter_options(two, {}) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 32}
    assert adapter_options(two, {"max_loras": 3, "max_lora_rank": 64})["max_lora_rank"] == 64
    many = {f"n{number}": two["a"] for number in range(20)}
    assert adapter_options(many, {}) == {"enable_lora": True, "max_loras": 8, "max_cpu_loras": 20, "max_lora_rank": 8}


@pytest.mark.parametrize("config", [{}, {"r": "8"}, {"r": 1000}])
def test_a_folder_that_holds_none_is_refused_by_its_setting(tmp_path: Path, config: dict[str, object]) -> None:
    """Before the model is loaded."""
    with pytest.raises(EngineOptionsInvalid, match=r"model\.lora_adapters"):
        adapter_options({"a": adapter(tmp_path / "a", **config)}, {})
    with pytest.raises(EngineOptionsInvalid, match=str(tmp_path)):
        adapter_options({"a": str(tmp_path)}, {})


def test_only_adapters_that_are_there_are_served() -> None:
    """A job that names none is served by the model itself."""
    refuse_unknown_adapter(GenerationRequest(model="m", prompt="x"), {})
    refuse_unknown_adapter(GenerationRequest(model="m", prompt="x", lora="a"), {"a": "/a"})
    with pytest.raises(RequestRejected, match=r"no adapter 'b' \(it has: a\)") as refused:
        refuse_unknown_adapter(GenerationRequest(model="m", prompt="x", lora="b"), {"a": "/a"})
    assert refused.value.code is FailureCode.MODEL_NOT_FOUND


def test_prompts_of_different_adapters_do_not_begin_alike() -> None:
    """What the engine has of one in its cache serves no other."""
    one, other, same, base = (
        prefix_of(GenerationRequest(model="m", prompt="x" * 2000, lora=lora)) for lora in ("a", "b", "a", None)
    )
    assert len({one, other, base}) == 3
    assert one == same


def test_the_tiny_adapter_is_the_same_every_time(tmp_path: Path) -> None:
    """By its seed."""
    files = [
        make_tiny_adapter(tmp_path / str(at), seed) / "adapter_model.safetensors" for at, seed in enumerate((7, 7, 8))
    ]
    first, second, third = (file.read_bytes() for file in files)
    assert first == second != third
