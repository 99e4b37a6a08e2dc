"""Where settings come from: each source becomes a flat list of names with values, and remembers who said it.

Files and profiles are TOML, variables are ``FLEET_<GROUP>__<FIELD>``; one that ends in ``_FILE`` names a file with the
value, as containers get their secrets. Nothing here validates values.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from config.errors import SettingsError
from config.names import (
    CONFIG_VARIABLE,
    OPTIONS,
    SHORT_VARIABLES,
    VARIABLE_PREFIX,
    group_names,
    is_known,
    setting_names,
    unknown_name,
    unknown_setting,
    variable_name,
)

COMMAND_LINE: Final = "command line"
FOREIGN_VARIABLES: Final = frozenset(
    {CONFIG_VARIABLE, "FLEET_ACCELERATOR", "FLEET_COMMAND_LINE_SETTINGS", "FLEET_ENGINE_LOG"}
)
"""Variables with our prefix that are no settings: the file's place, the installer's, and what a supervisor tells its
workers, and those their engines."""
_FILE_SUFFIX: Final = "_FILE"
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """One value of one setting, as one source gave it."""

    name: str
    """Dotted: ``worker.gpus``, ``engine.options.max_num_seqs``."""
    value: Any
    origin: str
    """For people: ``environment FLEET_MODEL``, ``file fleet.toml``, ``profile latency``, ``command line``."""


def from_command_line(overrides: Mapping[str, Any]) -> list[SourcedValue]:
    """Values by dotted name; None is an option that was not given, but of the engine's options a value as any other."""
    values: list[SourcedValue] = []
    for name, value in overrides.items():
        if not is_known(name):
            raise SettingsError(f"{COMMAND_LINE}: {unknown_setting(name)}")
        if value is not None or name.startswith(f"{OPTIONS}."):
            values += _options_apart(SourcedValue(name, value, COMMAND_LINE))
    return values


def from_file(path: Path) -> list[SourcedValue]:
    """Values of a settings file.

    Raises:
        SettingsError: it cannot be read, is not TOML, or holds an unknown name.
    """
    origin = f"file {path}"
    return from_document(toml_document(path, origin), origin)


def toml_document(path: Path, origin: str) -> dict[str, Any]:
    """A TOML file's content.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{origin}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingsError(f"{origin}: is not TOML: {error}") from error


def from_document(document: Mapping[str, Any], origin: str) -> list[SourcedValue]:
    """Values of a parsed TOML document."""
    return [value for key, content in document.items() for value in _walk(key, content, origin)]


def _walk(name: str, content: object, origin: str) -> Iterator[SourcedValue]:
    if name in group_names():
        if not isinstance(content, Mapping):
            raise SettingsError(f"{origin}: {name!r} is a group of settings: write it as a table, [{name}]")
        for key, inner in content.items():
            yield from _walk(f"{name}.{key}", inner, origin)
        return
    if not is_known(name):
        raise SettingsError(f"{origin}: {unknown_setting(name)}")
    yield from _options_apart(SourcedValue(name, content, origin))


def _options_apart(given: SourcedValue) -> Iterator[SourcedValue]:
    """``engine.options`` as one value per option, so that sources add to each other; anything else as it is."""
    if given.name != OPTIONS:
        yield given
        return
    if not isinstance(given.value, Mapping):
        raise SettingsError(f"{given.origin}: {OPTIONS} must be a table of options by vLLM's names")
    for option, value in given.value.items():
        yield SourcedValue(f"{OPTIONS}.{option}", value, given.origin)


def from_environment(environ: Mapping[str, str]) -> list[SourcedValue]:
    """Values of the variables that start with ``FLEET_``; an empty one counts as not set.

    Raises:
        SettingsError: a variable is unknown, two variables set one thing differently, or a value's file cannot be read.
    """
    spelled: dict[str, SourcedValue] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(VARIABLE_PREFIX) or not text or variable in FOREIGN_VARIABLES:
            continue
        for value in _from_variable(variable, text):
            earlier = spelled.setdefault(value.name, value)
            if earlier.value != value.value:
                raise SettingsError(f"{earlier.origin} and {variable} set {value.name} differently: leave one out")
    return list(spelled.values())


def _from_variable(variable: str, text: str) -> list[SourcedValue]:
    origin = f"environment {variable}"
    name = _setting_of(variable)
    if is_known(name):
        value = parsed_option(text) if name.startswith(OPTIONS) else text
        return list(_options_apart(SourcedValue(name, value, origin)))
    name = _setting_of(variable.removesuffix(_FILE_SUFFIX))
    if is_known(name) and variable.endswith(_FILE_SUFFIX):
        return [SourcedValue(name, _content(Path(text), origin), origin)]
    if _SERVICE_LINK.search(variable) or (variable.endswith("_PORT") and _SERVICE_ADDRESS.match(text)):
        return []  # Kubernetes sets these in every pod for a service whose name starts with "fleet"
    known = [*map(variable_name, setting_names()), *SHORT_VARIABLES, *FOREIGN_VARIABLES]
    raise SettingsError(f"environment: {unknown_name('variable', variable, known)}")


def _setting_of(variable: str) -> str:
    return SHORT_VARIABLES.get(variable) or variable.removeprefix(VARIABLE_PREFIX).lower().replace("__", ".")


def _content(path: Path, origin: str) -> str:
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{origin}: {path} cannot be read: {getattr(error, 'strerror', error)}") from error
    if not content:
        raise SettingsError(f"{origin}: {path} is empty")
    return content


def parsed_option(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """An engine option's value from text: JSON where it is JSON (``64``, ``true``, ``{"level": 3}``), else the text."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
