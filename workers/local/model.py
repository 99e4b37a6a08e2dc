"""Which model a local fleet serves when nobody named one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.loading import load_settings

TINY_MODEL: Final = "tiny-llama"
TINY_KV_CACHE_BYTES: Final = 512 * 1024**2


def model_or_tiny(overrides: Mapping[str, Any], folder: Path, config_file: Path | None) -> dict[str, Any]:
    """The overrides, with a tiny random Llama made under ``folder`` when no source of settings names a model."""
    settings = load_settings(config_file=config_file, environ=os.environ, overrides=overrides).settings
    if settings.model.name or settings.engine.kind == "simulated":
        return dict(overrides)
    from workers.models.tiny import make_tiny_model

    tiny = {
        "model.name": str(make_tiny_model(folder / "models" / TINY_MODEL)),
        "engine.options.kv_cache_memory_bytes": TINY_KV_CACHE_BYTES,
        # What it is saved in; and compiling would take longer than the whole job set.
        "engine.options.dtype": "float32",
        "engine.options.enforce_eager": True,
    }
    return tiny | dict(overrides)
