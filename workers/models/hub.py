"""What the model hub has of a model, and what its refusals mean to whoever asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, constants, errors
from huggingface_hub.hf_api import RepoFile

DEFAULT_REVISION: Final = "main"
_UNAUTHORIZED: Final = 401
_NETWORK_ERROR: Final[type[Exception]] = errors.HfHubHTTPError.__mro__[1]
"""What the hub's client raises when a connection fails; by its place, since two HTTP libraries define it."""
_WITH_PROOF: Final = "with a token that may read it: set HF_TOKEN, or name a file that holds it with --token-file"


class ModelError(Exception):
    """A model cannot be had, found or trusted; the message says what to do."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model, as the hub lists it."""

    path: str
    size_bytes: int
    digest: str
    """SHA-256 of a large file (LFS), git's SHA-1 of a small one; in the cache its blob has this name."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a model at one commit."""

    name: str
    revision: str
    """As it was asked for: a branch, a tag or a commit."""
    commit: str
    files: tuple[HubFile, ...]


def list_model(name: str, revision: str, token: str | None) -> Listing:
    """Ask the hub which commit a revision is, and which files it has.

    Raises:
        ModelError: it does not know or does not give it, or cannot be reached.
    """
    api = HfApi(token=token)
    with hub_refusals(name, revision):
        commit = api.model_info(name, revision=revision).sha
        if not commit:
            raise ModelError(f"the hub does not say which commit {revision!r} of {name} is")
        entries = [entry for entry in api.list_repo_tree(name, recursive=True, revision=commit)]  # noqa: C416 - lazy
    files = (
        HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile)
    )
    return Listing(name, revision, commit, tuple(files))


def read_token(path: Path | None) -> str | None:
    """The token in a file; None without one: the hub's client then looks at HF_TOKEN, and at what its login kept.

    Raises:
        ModelError: the file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ModelError(f"--token-file {path} cannot be read: {error}") from error
    if not token:
        raise ModelError(f"--token-file {path} is empty")
    return token


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the hub."""
    return constants.is_offline_mode()


@contextmanager
def hub_refusals(name: str, revision: str) -> Iterator[None]:
    """Around questions to the hub: what its client raises becomes a :class:`ModelError`."""
    try:
        yield
    except errors.HFValidationError as error:
        raise ModelError(f"{name!r} is no model name: it is written OWNER/NAME") from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(offline(name)) from error
    except errors.HfHubHTTPError as error:
        raise ModelError(_refusal(error, name, revision)) from error
    except (_NETWORK_ERROR, errors.LocalEntryNotFoundError) as error:
        raise ModelError(
            f"the model hub at {constants.ENDPOINT} could not be reached: {_first_line(error)}; "
            "run it again when it can be: what is whole is kept"
        ) from error


def offline(name: str) -> str:
    """Why ``name`` cannot be pulled now."""
    return f"{name} cannot be pulled: HF_HUB_OFFLINE is set, so the model hub is not asked; unset it, and pull again"


def _refusal(error: errors.HfHubHTTPError, name: str, revision: str) -> str:
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, errors.GatedRepoError):
        if error.response.status_code == _UNAUTHORIZED:
            return f"{name} is gated: accept its terms at {page}, then pull it {_WITH_PROOF}"
        return f"{name} is gated, and this token's account has no access yet: ask for it at {page}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {name}, or it is private: check the name, or pull it {_WITH_PROOF}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}: set model.revision (--revision) to a branch, tag or commit of it"
    if error.response.status_code == _UNAUTHORIZED:
        return f"the hub refuses this token: {_first_line(error)}; make a new one, and set HF_TOKEN or --token-file"
    return f"the model hub refused {name}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
