"""Which of a model's files vLLM reads; repositories hold the same weights in several formats, and much else."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from typing import Final

from workers.models.hub import HubFile

SMALL_FILES: Final = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py")
"""Configuration, tokenizer and chat template. Code is run only where ``trust_remote_code`` asks for it."""
WEIGHT_FORMATS: Final = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""The first of these that a repository has is taken, as vLLM does."""
NOT_WEIGHTS: Final = ("training_args.bin", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*")
OTHER_FORMATS: Final = ("original/*", "onnx/*", "openvino/*", "coreml/*", "runs/*")


def needed_files(
    files: Iterable[HubFile], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[HubFile, ...]:
    """What to download: what matches ``include``, or without any what vLLM needs; but nothing of ``exclude``."""
    listed = [file for file in files if not matches(file.path, exclude)]
    if include:
        return tuple(file for file in listed if matches(file.path, include))
    listed = [file for file in listed if not matches(file.path, OTHER_FORMATS)]
    weights = weight_files(file.path for file in listed)
    return tuple(file for file in listed if file.path in weights or matches(file.path, SMALL_FILES))


def weight_files(paths: Iterable[str]) -> set[str]:
    """The weights among a model's files, in the one format that is read; vLLM looks into no folder below."""
    here = [path for path in paths if "/" not in path and not matches(path, NOT_WEIGHTS)]
    for pattern in WEIGHT_FORMATS:
        if found := {path for path in here if fnmatch(path, pattern)}:
            return found
    return set()


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether any shell pattern matches; ``*`` crosses folders, as on the hub."""
    return any(fnmatch(path, pattern) for pattern in patterns)
