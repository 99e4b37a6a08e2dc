"""Which model a local fleet serves when nobody named one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.loading import load_settings

TINY_MODEL: Final = "tiny-llama"


def model_or_tiny(overrides: Mapping[str, Any], folder: Path, config_file: Path | None) -> dict[str, Any]:
    """The overrides, with a tiny random Llama made under ``folder`` when no source of settings names a model."""
    settings = load_settings(config_file=config_file, environ=os.environ, overrides=overrides).settings
    if settings.model.name or settings.engine.kind == "simulated":
        return dict(overrides)
    from workers.models.tiny import make_tiny_model

    return dict(overrides) | {"model.name": str(make_tiny_model(folder / "models" / TINY_MODEL))}
