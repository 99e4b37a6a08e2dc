"""Whether the files of a model in the cache are what the hub has, without asking it.

A pull's record has the digests. What somebody else fetched is judged by the names of the blobs, which are digests too:
SHA-256 of large files, git's SHA-1 of small ones.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from workers.models.cache import CachedModel

_CHUNK_BYTES: Final = 8 * 1024**2
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1: Final = re.compile(r"[0-9a-f]{40}")


def damage(model: CachedModel, on_file: Callable[[str], None] = lambda _path: None) -> list[str]:
    """What is wrong with a model in the cache, a sentence per file; none: every byte is what the hub has.

    Every file is read; ``on_file`` is told each one's name before.
    """
    found = []
    if model.record is None:
        found += model.faults()
    for path, digest in expected_digests(model):
        on_file(path)
        if fault := file_damage(model.folder / path, digest):
            found.append(f"{path} {fault}")
    return found


def expected_digests(model: CachedModel) -> Iterator[tuple[str, str]]:
    """Each file with its digest, as far as it is known."""
    if (files := model.record) is not None:
        for file in files:
            yield file.path, file.digest
        return
    for path in sorted(model.folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            digest = path.readlink().name if path.is_symlink() else ""
            yield path.relative_to(model.folder).as_posix(), digest


def file_damage(path: Path, digest: str) -> str | None:
    """What is wrong with one file; None: nothing, or nobody knows what it should be."""
    if not path.is_file():
        return "is missing"
    if _SHA256.fullmatch(digest):
        actual = _digest(path, hashlib.sha256())
    elif _GIT_SHA1.fullmatch(digest):
        # How git names a blob: its kind and length go before its content.
        head = f"blob {path.stat().st_size}\0".encode()
        actual = _digest(path, hashlib.sha1(head, usedforsecurity=False))
    else:
        return None
    return None if actual == digest else f"is not what the hub has (its digest is {actual[:12]}…, not {digest[:12]}…)"


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
