"""How much memory this machine has, or the container that this process is in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of version 2 and 1; a container sees its own there."""


def machine_memory_bytes(limits: Sequence[Path] = CGROUP_LIMITS) -> int:
    """The machine's memory, or its container's limit where that is less."""
    return min([psutil.virtual_memory().total, *(int(text) for text in map(_said, limits) if text.isdigit())])


def _said(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
