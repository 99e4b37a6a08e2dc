"""The tiny model: the same bytes everywhere, and whole or not there at all."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from workers.models.tiny import BOS, MAX_MODEL_TOKENS, VOCABULARY_TOKENS, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    """Its tokenizer."""
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_runs_make_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """Weights, tokenizer and configuration."""
    assert contents(make_tiny_model(tmp_path / "again")) == contents(model)


def test_a_complete_folder_is_left_as_it_is(model: Path) -> None:
    """Nothing is written a second time."""
    before = {path: path.stat().st_mtime_ns for path in model.iterdir()}
    assert make_tiny_model(model) == model
    assert {path: path.stat().st_mtime_ns for path in model.iterdir()} == before


def test_an_empty_folder_is_filled(tmp_path: Path, model: Path) -> None:
    """A folder that somebody made beforehand, a mount point for example."""
    folder = tmp_path / "empty"
    folder.mkdir()
    assert contents(make_tiny_model(folder)) == contents(model)


def test_a_half_written_folder_is_not_taken_for_a_model(tmp_path: Path) -> None:
    """It is refused, not completed: nobody knows whose it is."""
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(OSError, match="half"):
        make_tiny_model(folder)
    assert contents(folder) == {"config.json": b"{}"}


def test_no_draft_is_left_beside_the_model(tmp_path: Path) -> None:
    """Whether it was made or refused."""
    make_tiny_model(tmp_path / "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("text", ["plain words", "Größe 大小 🌊", "\x00\x01 tab\t line\n", "نص عربي"])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    """Whatever was not learned is spelled in bytes."""
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_prompt_begins_with_the_token_of_the_beginning(tokenizer: Tokenizer) -> None:
    """As the model was made to expect."""
    assert tokenizer.encode("x").ids[0] == tokenizer.token_to_id(BOS) == 0


def test_configuration_and_tokenizer_agree(model: Path, tokenizer: Tokenizer) -> None:
    """Every token that can be drawn can be spelled."""
    config = json.loads((model / "config.json").read_text())
    assert config["vocab_size"] == tokenizer.get_vocab_size() == VOCABULARY_TOKENS
    assert config["max_position_embeddings"] == MAX_MODEL_TOKENS == 2_048
    assert config["eos_token_id"] == tokenizer.token_to_id("<|end|>")
