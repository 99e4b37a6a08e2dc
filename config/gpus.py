"""Which GPUs a machine's workers use, as people write it."""

import re
from typing import Any, Final

MOST_ENGINES_PER_GPU: Final = 8
"""More would divide the memory of any GPU into parts too small to be of use."""
GPU_WORDS: Final = ("auto", "none", "all")
_INDEX: Final = re.compile(r"\d{1,3}")
_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+")


def parsed_gpus(value: Any) -> str:  # noqa: ANN401 - a TOML file may hold a number or a list here
    """``value`` in the one form that the rest reads: a word, or indices and UUIDs with commas and no spaces.

    Raises:
        ValueError: it is neither, or names a GPU twice.
    """
    if isinstance(value, list | tuple):
        return parsed_gpus(",".join(str(part) for part in value))
    text = str(value).strip()
    if text.lower() in GPU_WORDS:
        return text.lower()
    names = [part.strip() for part in text.split(",")]
    if not all(_INDEX.fullmatch(name) or _UUID.fullmatch(name) for name in names):
        raise ValueError(
            f"{text!r} names no GPUs; write auto, none, all, indices such as 0,1, or UUIDs such as GPU-1a2b"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a GPU twice")
    return ",".join(names)


def parsed_engines_per_gpu(value: Any) -> int | str:  # noqa: ANN401 - a value before validation
    """``value`` as a number of engines, or the word ``auto``.

    Raises:
        ValueError: it is neither.
    """
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if text.isdecimal() and 1 <= int(text) <= MOST_ENGINES_PER_GPU:
        return int(text)
    raise ValueError(f"{text!r} is no number of engines; write 1 to {MOST_ENGINES_PER_GPU}, or auto")
