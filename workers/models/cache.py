"""What lies in the model hub's cache on this machine."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import (
    CachedRepoInfo,
    CachedRevisionInfo,
    DeleteCacheStrategy,
    HFCacheInfo,
    constants,
    scan_cache_dir,
)
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.file_download import repo_folder_name

from workers.models.folder import faults
from workers.models.hub import DEFAULT_REVISION, HubFile, ModelError
from workers.models.record import forget_record, read_record, write_whole

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One commit of a model in the cache."""

    name: str
    commit: str
    refs: tuple[str, ...]
    """Branches and tags that were this commit when they were asked for."""
    size_bytes: int
    used_at: float
    """Seconds since the epoch when a file of the model was last read, as far as the file system notes it."""
    folder: Path

    @property
    def record(self) -> tuple[HubFile, ...] | None:
        """What the pull set out to fetch, where a pull did."""
        return read_record(self.folder.parents[1], self.commit)

    def faults(self) -> list[str]:
        """Why it could not be served, by names and sizes; none: it looks whole."""
        files = self.record
        if files is None:
            return faults(self.folder)
        missing = [f"{file.path} is missing" for file in files if not (self.folder / file.path).is_file()]
        cut = [
            f"{file.path} has {size} bytes instead of {file.size_bytes}"
            for file in files
            if (self.folder / file.path).is_file()
            and (size := (self.folder / file.path).stat().st_size) != file.size_bytes
        ]
        return missing + cut or faults(self.folder)


def cache_folder() -> Path:
    """Where the hub's client keeps models: HF_HUB_CACHE, or ``hub`` in HF_HOME."""
    return Path(constants.HF_HUB_CACHE)


def repository_folder(name: str) -> Path:
    """A model's folder in the cache."""
    return cache_folder() / repo_folder_name(repo_id=name, repo_type="model")


def cached_models(name: str = "") -> list[CachedModel]:
    """Every commit of every model in the cache, or of the one; by name, those used last first."""
    scanned = _scanned()
    found = [
        CachedModel(
            repository.repo_id,
            revision.commit_hash,
            tuple(sorted(revision.refs)),
            revision.size_on_disk,
            max((file.blob_last_accessed for file in revision.files), default=revision.last_modified),
            revision.snapshot_path,
        )
        for repository, revision in _revisions(scanned, name)
    ]
    return sorted(found, key=lambda model: (model.name, -model.used_at))


def find(name: str, revision: str) -> CachedModel | None:
    """The commit that ``revision`` names here, without asking the hub; None: it was never fetched."""
    commit = revision if _COMMIT.fullmatch(revision) else _ref(name, revision or DEFAULT_REVISION)
    return next((model for model in cached_models(name) if model.commit == commit), None)


def write_ref(name: str, revision: str, commit: str) -> None:
    """From now on ``revision`` is this commit here; offline, vLLM looks it up."""
    if revision != commit:
        write_whole(repository_folder(name) / "refs" / revision, commit)


def deletion(name: str, revision: str) -> tuple[DeleteCacheStrategy, list[CachedModel]]:
    """How to remove a model, or one revision of it, and what goes with it.

    Raises:
        ModelError: it is not here.
    """
    chosen = cached_models(name)
    if revision:
        found = find(name, revision)
        chosen = [found] if found else []
    scanned = _scanned()
    if not chosen or scanned is None:
        at = f" at {revision}" if revision else ""
        raise ModelError(
            f"{name}{at} is not in the cache ({cache_folder()}); fleet models list --downloaded shows what is"
        )
    return scanned.delete_revisions(*(model.commit for model in chosen)), chosen


def remove(strategy: DeleteCacheStrategy, models: Iterable[CachedModel]) -> None:
    """Carry it out."""
    strategy.execute()
    for model in models:
        forget_record(repository_folder(model.name), model.commit)


def _scanned() -> HFCacheInfo | None:
    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None


def _revisions(scanned: HFCacheInfo | None, name: str) -> Iterable[tuple[CachedRepoInfo, CachedRevisionInfo]]:
    for repository in scanned.repos if scanned else ():
        if repository.repo_type == "model" and name in {"", repository.repo_id}:
            for revision in repository.revisions:
                yield repository, revision


def _ref(name: str, revision: str) -> str:
    try:
        return (repository_folder(name) / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
