"""Fetching a model into the hub's cache: what vLLM needs of it, after a look at the disk."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.utils.tqdm import disable_progress_bars

from workers.models.cache import CachedModel, cache_folder, find, repository_folder, write_ref
from workers.models.hub import DEFAULT_REVISION, HubFile, ModelError, hub_refusals, is_offline, list_model, offline
from workers.models.record import write_record
from workers.models.selection import needed_files
from workers.models.verify import file_damage

MEGABYTE: Final = 1e6
ABANDONED_SECONDS: Final = 3600.0
"""A part of a file that nobody has written to for this long belongs to a pull that was killed; none goes on from it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model, and which of its files."""

    name: str
    revision: str = ""
    """Empty: the default branch."""
    include: tuple[str, ...] = ()
    """Shell patterns; none: what vLLM needs."""
    exclude: tuple[str, ...] = ()
    is_repair: bool = False
    """Look at every byte that is here, and fetch anew what is not what the hub has."""


def pull(wanted: Wanted, token: str | None, tell: Callable[[str], None]) -> CachedModel:
    """Fetch what is not here yet; the model as it then lies in the cache.

    Files that are whole are kept by whatever ends a pull early, and the revision's name moves only when all are here: a
    worker never starts from half of a new commit.

    Raises:
        ModelError: the hub refuses or cannot be reached, or the disk is too small.
    """
    if is_offline():
        raise ModelError(offline(wanted.name))
    listing = list_model(wanted.name, wanted.revision or DEFAULT_REVISION, token)
    files = needed_files(listing.files, wanted.include, wanted.exclude)
    if not files:
        raise ModelError(f"{wanted.name} has no files of these patterns: change --include or --exclude")
    snapshot = repository_folder(wanted.name) / "snapshots" / listing.commit
    _drop_damaged(snapshot, files, is_thorough=wanted.is_repair)
    missing = [file for file in files if not _is_here(snapshot, file)]
    tell(
        f"{wanted.name} at commit {listing.commit}: {len(files)} files, {_megabytes(files)} MB, "
        f"{_megabytes(missing)} MB to fetch"
    )
    check_disk(wanted.name, sum(file.size_bytes for file in missing))
    _fetch(listing.name, listing.commit, files, token)
    write_ref(listing.name, listing.revision, listing.commit)
    _sweep(repository_folder(wanted.name) / "blobs")
    found = find(wanted.name, listing.commit)
    if found is None:
        raise ModelError(f"{wanted.name} was fetched and is not in {cache_folder()}: pull it again")
    return found


def draw_no_progress() -> None:
    """From now on, in this process."""
    disable_progress_bars()


def check_disk(name: str, needed_bytes: int) -> None:
    """Before anything is fetched.

    Raises:
        ModelError: there is less room than the files need.
    """
    place = next(folder for folder in (cache_folder(), *cache_folder().parents) if folder.exists())
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise ModelError(
            f"{name} needs {needed_bytes / MEGABYTE:,.1f} MB, and {place} has {free_bytes / MEGABYTE:,.1f} MB free: "
            "make room (fleet models list --downloaded, fleet models remove), or set HF_HOME to another disk"
        )


def _fetch(name: str, commit: str, files: tuple[HubFile, ...], token: str | None) -> None:
    repository = repository_folder(name)
    try:
        write_record(repository, commit, files)
        with hub_refusals(name, commit):
            # A name is a pattern of itself once its brackets are none.
            patterns = [file.path.replace("[", "[[]") for file in files]
            snapshot_download(name, revision=commit, allow_patterns=patterns, token=token)
    except OSError as error:
        raise ModelError(
            f"{name} could not be stored in {repository}: {error}; whole files are kept, and pulling again goes on"
        ) from error


def _drop_damaged(snapshot: Path, files: tuple[HubFile, ...], *, is_thorough: bool) -> None:
    """What is here and is not what the hub has: its client would take it for fetched."""
    for file in files:
        path = snapshot / file.path
        is_cut = path.is_file() and path.stat().st_size != file.size_bytes
        if is_cut or (is_thorough and path.is_file() and file_damage(path, file.digest)):
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _is_here(snapshot: Path, file: HubFile) -> bool:
    return (snapshot / file.path).is_file() or (snapshot.parents[1] / "blobs" / file.digest).is_file()


def _sweep(blobs: Path) -> None:
    for part in blobs.glob("*.incomplete"):
        if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
            part.unlink(missing_ok=True)


def _megabytes(files: tuple[HubFile, ...] | list[HubFile]) -> str:
    return f"{sum(file.size_bytes for file in files) / MEGABYTE:,.1f}"
