"""The settings and profiles as Markdown tables; ``docs/settings.md`` holds them and a test keeps it in step.

``python -m config.reference docs/settings.md`` writes them anew.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from config.names import OPTIONS, setting_names, variable_name
from config.profile_files import profile_description, profile_names, profile_values
from config.settings import Settings

_BOUNDS: Final = {"exclusiveMinimum": ">", "minimum": "≥", "maximum": "≤"}
"""JSON Schema's words for bounds."""


def settings_table() -> str:
    """Every setting with its default, range and meaning."""
    header = "| Setting | Default | Range | Meaning |\n|---|---|---|---|\n"
    return header + "".join(_setting_row(name) for name in setting_names())


def profiles_table() -> str:
    """Every profile with what it is for."""
    rows = (f"| `{name}` | {profile_description(name)} |\n" for name in profile_names())
    return "| Profile | For |\n|---|---|\n" + "".join(rows)


def profile_values_table() -> str:
    """Every value that any profile sets, a column per profile."""
    values = {profile: {given.name: given.value for given in profile_values(profile)} for profile in profile_names()}
    settings = sorted({setting for given in values.values() for setting in given})
    rows = [
        _row(f"`{setting}`", *(json.dumps(given[setting]) if setting in given else "" for given in values.values()))
        for setting in settings
    ]
    return _row("Setting", *(f"`{profile}`" for profile in values)) + "|---" * (len(values) + 1) + "|\n" + "".join(rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings_table,
    "profiles": profiles_table,
    "profile-values": profile_values_table,
}
"""By the name in the page's marker ``<!-- table: NAME -->``; a table ends at ``<!-- end -->``."""


def with_tables(page: str) -> str:
    """``page`` with the content between its markers replaced by the tables of today."""
    for name, table in TABLES.items():
        start, marker, rest = page.partition(f"<!-- table: {name} -->\n")
        if not marker:
            raise ValueError(f"the page has no place for the table {name!r}")
        page = f"{start}{marker}{table()}<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return page


def _setting_row(name: str) -> str:
    schema = _schema(name)
    variable = variable_name(name) + ("__<OPTION>" if name == OPTIONS else "")
    meaning = " ".join(schema["description"].split())
    return _row(f"`{name}`<br>`{variable}`", _default(schema), _range(schema), meaning)


def _schema(name: str) -> dict[str, Any]:
    """One setting's JSON Schema; an optional one's with the bounds of what it may hold beside ``none``."""
    group, _, field = name.partition(".")
    model = type(Settings.model_fields[group].default) if field else Settings
    schema: dict[str, Any] = model.model_json_schema()["properties"][field or group]
    return schema | next(iter(schema.get("anyOf", ())), {})


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default", "")
    return "empty" if default == "" else f"`{'none' if default is None else default}`"


def _range(schema: Mapping[str, Any]) -> str:
    if choices := schema.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    return ", ".join(f"{sign} {schema[keyword]:,}" for keyword, sign in _BOUNDS.items() if keyword in schema)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(with_tables(place.read_text(encoding="utf-8")), encoding="utf-8")
