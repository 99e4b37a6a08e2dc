"""A group of settings as variables of the environment: how one process tells another."""

from config.names import setting_names, variable_name
from config.settings import Settings


def variables(settings: Settings, group: str) -> dict[str, str]:
    """Every setting of the group by its variable, as text."""
    names = [name for name in setting_names() if name.startswith(f"{group}.")]
    return {
        variable_name(name): str(getattr(getattr(settings, group), name.removeprefix(f"{group}."))) for name in names
    }
