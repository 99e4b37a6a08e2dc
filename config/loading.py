"""Loading the settings: collect from every source, merge by precedence, validate once, remember who said what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from config.errors import SettingsError
from config.masking import masked
from config.names import CONFIG_VARIABLE, OPTIONS, setting_names
from config.profile_files import profile_values
from config.settings import Settings
from config.sources import SourcedValue, from_command_line, from_environment, from_file

DEFAULT_FILE: Final = Path("fleet.toml")
"""Read from the working directory when it is there and no other file is named."""
DEFAULT_ORIGIN: Final = "default"


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting in force, as it may be shown."""

    name: str
    value: Any
    """Without secrets."""
    origin: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, and for each of them which source set it."""

    settings: Settings
    origins: Mapping[str, str]
    """By dotted name, one entry per setting and per engine option: ``environment FLEET_MODEL``, ``default``."""

    def shown(self) -> list[ShownSetting]:
        """Every value in force with its source; secrets are masked."""
        return [ShownSetting(name, self._shown_value(name), origin) for name, origin in self.origins.items()]

    def _shown_value(self, name: str) -> object:
        if name.startswith(f"{OPTIONS}."):
            option = name.removeprefix(f"{OPTIONS}.")
            return masked(option, self.settings.engine.options[option])
        value: Any = self.settings
        for part in name.split("."):
            value = getattr(value, part)
        return masked(name, value)


def load_settings(
    *, config_file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> LoadedSettings:
    """The settings in force: command line over environment over file over profile over defaults.

    Args:
        config_file: The settings file; None: the one that ``FLEET_CONFIG`` names, or ``fleet.toml`` in the working
            directory if there is one.
        environ: The environment; variables without the prefix ``FLEET_`` are not looked at.
        overrides: The command line's values by dotted name (``worker.gpus``, ``engine.options.max_num_seqs``); None
            is an option that was not given, but for an engine option it is vLLM's None.

    Raises:
        SettingsError: a source cannot be read, or holds an unknown name or a refused value.
    """
    file = _settings_file(config_file, environ)
    stated = _merged(
        (from_file(file) if file else [], from_environment(environ), from_command_line(overrides)),
    )
    profile = _profile_values(stated.get("profile"), file)
    values = _merged((profile, stated.values()))
    return LoadedSettings(_validated(values), _origins(values))


def _settings_file(config_file: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config_file is not None:
        return config_file
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _merged(sources: Iterable[Iterable[SourcedValue]]) -> dict[str, SourcedValue]:
    """By name; a later source wins."""
    return {value.name: value for source in sources for value in source}


def _profile_values(named: SourcedValue | None, file: Path | None) -> list[SourcedValue]:
    if named is None or not named.value:
        return []
    if not isinstance(named.value, str):
        raise SettingsError(f"profile ({named.origin}): must be a name or a path")
    # A path in the settings file starts where that file is, like everywhere else; others at the working directory.
    in_file = file is not None and named.origin.startswith("file ")
    return profile_values(named.value, folder=file.parent if file and in_file else Path())


def _validated(values: Mapping[str, SourcedValue]) -> Settings:
    document: dict[str, Any] = {}
    for name, given in values.items():
        *groups, field = name.split(".", OPTIONS.count(".") + 1)
        table = document
        for group in groups:
            table = table.setdefault(group, {})
        table[field] = given.value
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(_readable(error, values)) from error


def _readable(error: ValidationError, values: Mapping[str, SourcedValue]) -> str:
    findings = []
    for finding in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(part) for part in finding["loc"])
        origins = {given.origin for key, given in values.items() if key == name or key.startswith(f"{name}.")}
        text = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{name} ({', '.join(sorted(origins)) or DEFAULT_ORIGIN}): {text[:1].lower()}{text[1:]}")
    return "; ".join(findings)


def _origins(values: Mapping[str, SourcedValue]) -> dict[str, str]:
    origins: dict[str, str] = {}
    for name in setting_names():
        if name == OPTIONS:
            options = sorted(key for key in values if key.startswith(f"{OPTIONS}."))
            origins |= {key: values[key].origin for key in options}
        else:
            origins[name] = values[name].origin if name in values else DEFAULT_ORIGIN
    return origins
