"""Which of a repository's files are fetched."""

import pytest

from workers.models.hub import HubFile
from workers.models.selection import needed_files


def chosen(*paths: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> set[str]:
    """Paths that are fetched of these."""
    files = [HubFile(path, 1, "") for path in paths]
    return {file.path for file in needed_files(files, include, exclude)}


SMALL = ("config.json", "tokenizer.json", "merges.txt", "chat_template.jinja", "tokenizer.model", "modeling_x.py")


@pytest.mark.parametrize(
    ("weights", "fetched"),
    [
        (("model.safetensors", "pytorch_model.bin", "model.gguf"), {"model.safetensors"}),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), None),
        (("pytorch_model.bin", "training_args.bin", "optimizer.pt"), {"pytorch_model.bin"}),
        (("consolidated.00.pt",), None),
        (("original/consolidated.00.pth", "model.safetensors", "onnx/model.onnx"), {"model.safetensors"}),
        (("text_encoder/model.safetensors",), set()),
    ],
)
def test_weights_are_fetched_in_one_format(weights: tuple[str, ...], fetched: set[str] | None) -> None:
    """The first that vLLM would take, from the folder that it looks into; None: all of these."""
    assert chosen(*SMALL, *weights) == {*SMALL, *(weights if fetched is None else fetched)}


def test_papers_and_pictures_are_left() -> None:
    """Nothing reads them."""
    assert chosen("README.md", "LICENSE", ".gitattributes", "figure.png") == set()


def test_patterns_take_the_place_of_the_choice() -> None:
    """What is excluded stays out even where it is included."""
    paths = ("README.md", "a.gguf", "b.gguf", "config.json")
    assert chosen(*paths, include=("*.gguf",)) == {"a.gguf", "b.gguf"}
    assert chosen(*paths, include=("*.gguf",), exclude=("b*",)) == {"a.gguf"}
    assert chosen(*paths, exclude=("b*",)) == {"a.gguf", "config.json"}
