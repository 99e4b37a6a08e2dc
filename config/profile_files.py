"""Profiles: named sets of settings for a purpose or a model's size, as TOML files in this package or the user's own."""

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from config.errors import SettingsError
from config.names import unknown_name
from config.sources import SourcedValue, from_document, toml_document

SUFFIX: Final = ".toml"
DESCRIPTION: Final = "description"
"""One line for people; the only key of a profile that is no setting."""


def profile_names() -> tuple[str, ...]:
    """The packaged profiles, sorted."""
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in _packaged()))


def profile_description(name: str) -> str:
    """One line about a packaged profile."""
    return str(_document(name, Path())[DESCRIPTION])


def profile_values(name: str, *, folder: Path = Path()) -> list[SourcedValue]:
    """What a profile sets; ``folder`` is where a relative path starts.

    Raises:
        SettingsError: no such profile, or it cannot be read, or sets what is unknown.
    """
    document = {key: value for key, value in _document(name, folder).items() if key != DESCRIPTION}
    if "profile" in document:
        raise SettingsError(f"profile {name}: a profile cannot name another profile")
    return from_document(document, f"profile {name}")


def _document(name: str, folder: Path) -> dict[str, Any]:
    if name.endswith(SUFFIX) or "/" in name:
        return toml_document(folder / name, f"profile {name}")
    for file in _packaged():
        if file.name == name + SUFFIX:
            return tomllib.loads(file.read_text(encoding="utf-8"))
    raise SettingsError(f"{unknown_name('profile', name, profile_names())} (or give the path of a {SUFFIX} file)")


def _packaged() -> Iterable[Traversable]:
    return [file for file in files("config").joinpath("profiles").iterdir() if file.name.endswith(SUFFIX)]
