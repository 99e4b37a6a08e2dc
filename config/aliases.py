"""Other names of a model, as people write them."""

from collections.abc import Mapping
from typing import Any, Final

MOST_NAME_CHARACTERS: Final = 256


def parsed_aliases(value: Any) -> str:  # noqa: ANN401 - a TOML file may hold a list here
    """``value`` in the one form that the rest reads: names with commas and no spaces around them.

    Raises:
        ValueError: one is empty, too long, or there twice.
    """
    if isinstance(value, list | tuple):
        return parsed_aliases(",".join(str(part) for part in value))
    names = [part.strip() for part in str(value).split(",")]
    if names == [""]:
        return ""
    if not all(0 < len(name) <= MOST_NAME_CHARACTERS for name in names):
        raise ValueError(f"each alias has 1 to {MOST_NAME_CHARACTERS} characters: {value!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"{value!r} has an alias twice")
    return ",".join(names)


def parsed_adapters(value: Any) -> str:  # noqa: ANN401 - a TOML file may hold a table here
    """``value`` in the one form that the rest reads: ``name=folder`` with commas and no spaces around them.

    Raises:
        ValueError: one is not such a pair, or a name is there twice.
    """
    if isinstance(value, Mapping):
        return parsed_adapters(",".join(f"{name}={folder}" for name, folder in value.items()))
    pairs = [tuple(part.strip() for part in pair.partition("=")) for pair in str(value).split(",")]
    if pairs == [("", "", "")]:
        return ""
    for name, _, folder in pairs:
        if not folder or not 0 < len(name) <= MOST_NAME_CHARACTERS:
            raise ValueError(f"each adapter is written name=folder, with commas between them: {value!r}")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError(f"{value!r} has an adapter twice")
    return ",".join(f"{name}={folder}" for name, _, folder in pairs)
