"""The names of all settings, and what was probably meant by a name that is none of them."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Final

from config.group import SettingsGroup
from config.settings import Settings

OPTIONS: Final = "engine.options"
"""The one setting that holds free names (vLLM's); each of them merges on its own."""
VARIABLE_PREFIX: Final = "FLEET_"
CONFIG_VARIABLE: Final = "FLEET_CONFIG"
"""Names the settings file; not a setting itself."""
SHORT_VARIABLES: Final = {"FLEET_REDIS_URL": "redis.url", "FLEET_MODEL": "model.name"}


@cache
def group_names() -> tuple[str, ...]:
    """The groups: ``redis``, ``model`` and so on."""
    return tuple(name for name in Settings.model_fields if _group(name))


@cache
def setting_names() -> tuple[str, ...]:
    """Every setting by its dotted name, in the order of declaration."""
    names: list[str] = []
    for name in Settings.model_fields:
        group = _group(name)
        names += [f"{name}.{field}" for field in group.model_fields] if group else [name]
    return tuple(names)


def is_known(name: str) -> bool:
    """Whether ``name`` is a setting, or one engine option."""
    return name in setting_names() or (name.startswith(f"{OPTIONS}.") and name.count(".") == OPTIONS.count(".") + 1)


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    return VARIABLE_PREFIX + setting.upper().replace(".", "__")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence that refuses ``name`` and offers what was probably meant, or everything that is known."""
    candidates = sorted(known)
    nearest = get_close_matches(name, candidates, n=1, cutoff=0.6)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(candidates)}"
    return f"unknown {kind} {name!r}: {hint}"


def unknown_setting(name: str) -> str:
    """A sentence that refuses the dotted ``name``; says where vLLM's own options go when it may be one of those."""
    group, _, field = name.partition(".")
    if group not in group_names():
        return unknown_name("setting", name, group_names() if field else (*group_names(), *setting_names()))
    known = [setting for setting in setting_names() if setting.startswith(f"{group}.")]
    hint = f" (an option of vLLM goes under [{OPTIONS}])" if group == "engine" else ""
    return unknown_name("setting", name, known) + hint


def _group(name: str) -> type[SettingsGroup] | None:
    annotation = Settings.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, SettingsGroup) else None
