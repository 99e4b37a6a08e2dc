"""What a pull set out to fetch, kept beside the model in the hub's cache: later nobody need ask the hub."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from workers.models.hub import HubFile

FOLDER: Final = "fleet"
"""Below the model's own folder in the cache, whose other parts (``blobs``, ``refs``, ``snapshots``) are the hub's."""


def write_record(repository: Path, commit: str, files: tuple[HubFile, ...]) -> None:
    """Before the first byte is fetched: a pull that ends early leaves it, and so is known to be incomplete."""
    content = json.dumps({"commit": commit, "files": [asdict(file) for file in files]}, indent=1)
    write_whole(_place(repository, commit), content + "\n")


def read_record(repository: Path, commit: str) -> tuple[HubFile, ...] | None:
    """The files of a pull; None when somebody else fetched them, or the record is not to be read."""
    try:
        content = json.loads(_place(repository, commit).read_text(encoding="utf-8"))
        return tuple(HubFile(**file) for file in content["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget_record(repository: Path, commit: str) -> None:
    """With the snapshot that it is about."""
    _place(repository, commit).unlink(missing_ok=True)


def write_whole(path: Path, content: str) -> None:
    """Put a file there whole or not at all, whoever reads it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    Path(draft).chmod(0o644)
    Path(draft).replace(path)


def _place(repository: Path, commit: str) -> Path:
    return repository / FOLDER / f"{commit}.json"
