"""The Lua scripts of this package, each with what it is put after."""

from importlib.resources import files
from typing import Final

from producer.script import FLOWS_SCRIPT


def _text(*names: str) -> str:
    folder = files("workers.transport")
    texts = (folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return "\n".join([FLOWS_SCRIPT, *texts])


SCRIPTS: Final = {name: _text("common", name) for name in ("finish", "bury", "renew", "reap", "release", "screen")} | {
    "claim": _text("common", "drain", "claim")
}
"""By name."""
BIND_SCRIPT: Final = files("workers.transport").joinpath("bind.lua").read_text(encoding="utf-8")
"""Of nobody's queue: it stands alone."""
