"""Why an engine did not come up, in one line, with the setting that would change it."""

import re
from typing import Final

from pydantic import ValidationError

from producer.strict import readable

MOST_CHARACTERS: Final = 600

SELF_EXPLAINING: Final = (ValueError, OSError, RuntimeError)
"""Types whose message stands alone; others are named in front of it."""

HINTS: Final = (
    (
        r"out of memory|less than desired gpu memory|no available memory|can't allocate memory",
        "lower gpu_memory_utilization, max_num_seqs or max_model_len, or raise tensor_parallel_size",
    ),
    (r"max seq len|kv cache is needed|kv cache memory", "lower max_model_len"),
    (
        r"offline|couldn't connect|can't load the|repository id|cached snapshot|no such file|have a file|model weights",
        "check model: it must be a folder that holds config.json, or a name that the model hub can deliver",
    ),
    (r"\bdtype\b", "change dtype"),
    (r"world size|tensor parallel|attention heads", "change tensor_parallel_size"),
    (r"proc\(s\): \{[^}]*: -9\b", "it was killed from outside, most often because the machine ran out of memory"),
)
"""Patterns of a cause in lower case, and what to do; the first that matches counts."""


def cause_in_one_line(error: BaseException) -> str:
    """The message of ``error`` on one line, and what to change where that is known."""
    if isinstance(error, ValidationError):
        text = readable(error)
    elif isinstance(error, SELF_EXPLAINING) and str(error):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    if len(line) > MOST_CHARACTERS:
        line = line[: MOST_CHARACTERS - 1] + "…"
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, text.lower())), None)
    return f"{line} (hint: {hint})" if hint else line
