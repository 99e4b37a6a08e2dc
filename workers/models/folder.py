"""A model's folder, whoever put it there: whether it can be served, and how large its weights are.

Only names, sizes and the heads of safetensors files are read, so that gigabytes are judged in milliseconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from workers.models.selection import weight_files

CONFIGURATIONS: Final = ("config.json", "params.json")
TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "*.tiktoken", "*.spm")
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
_LENGTH_BYTES: Final = 8
_LARGEST_HEAD_BYTES: Final = 100 * 1024**2


def names_folder(name: str) -> bool:
    """Whether a model of this name is a folder on this machine, and none of the hub's."""
    return name.startswith((".", "/")) or Path(name).is_dir()


def faults(folder: Path) -> list[str]:
    """Why vLLM could not serve this folder, a sentence each; none: it looks whole."""
    if not folder.is_dir():
        return [f"{folder} is no folder"]
    found = []
    if not any((folder / name).is_file() for name in CONFIGURATIONS):
        found.append("config.json is missing")
    if not any(True for pattern in TOKENIZERS for _ in folder.glob(pattern)):
        found.append("there is no tokenizer (tokenizer.json, or another format's file)")
    weights = weights_of(folder)
    if not weights:
        found.append("there are no weights")
    missing = [name for name in weights if not (folder / name).is_file()]
    found += [f"{name} is missing" for name in missing]
    for name in sorted(weights - set(missing)):
        if name.endswith(".safetensors") and (fault := safetensors_fault(folder / name)):
            found.append(f"{name} {fault}")
    return found


def weights_of(folder: Path) -> set[str]:
    """Names of the files with the weights: those that the index names, or else those that are there."""
    index = _json(folder / WEIGHTS_INDEX)
    if isinstance(index, dict) and isinstance(index.get("weight_map"), dict):
        return set(index["weight_map"].values())
    return weight_files(path.name for path in folder.iterdir())


def weights_bytes(folder: Path) -> int:
    """How much memory the weights take as they are stored."""
    return sum((folder / name).stat().st_size for name in weights_of(folder) if (folder / name).is_file())


def safetensors_fault(path: Path) -> str | None:
    """What is wrong with a file by its own head, which says how long it must be; None: nothing."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < head_bytes <= min(_LARGEST_HEAD_BYTES, size_bytes - _LENGTH_BYTES):
            return "is no safetensors file, or was cut off in its head"
        try:
            ends = list(_ends(json.loads(file.read(head_bytes))))
        except (ValueError, TypeError, AttributeError, IndexError):
            return "has a head that cannot be read"
    wanted_bytes = _LENGTH_BYTES + head_bytes + max(ends, default=0)
    return None if size_bytes == wanted_bytes else f"has {size_bytes} bytes, and its head says {wanted_bytes}"


def _ends(head: dict[str, Any]) -> Iterator[int]:
    for name, tensor in head.items():
        if name != "__metadata__":
            yield int(tensor["data_offsets"][1])


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
