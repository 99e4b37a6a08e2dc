"""Lua scripts of this package, and one run of each as data: what is sent is decided without a connection."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self


def script_text(name: str) -> str:
    """What ``<name>.lua`` of this package holds."""
    return files("producer").joinpath(f"{name}.lua").read_text(encoding="utf-8")


FLOWS_SCRIPT: Final = script_text("flows")
"""How jobs wait that have a tenant, a deadline or a shared prefix; to be put before scripts that move messages."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script and the name under which a server remembers it."""

    text: str
    sha: str

    @classmethod
    def named(cls, *names: str) -> Self:
        """The script in ``<name>.lua``; of several, one after the other."""
        text = "\n".join(map(script_text, names))
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """One run of a script, which is all or nothing."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]

    @property
    def encoded(self) -> bytes:
        """The EVALSHA command as it travels, in Redis' own protocol: for runs with thousands of arguments."""
        parts = [b"EVALSHA", self.script.sha.encode(), b"%d" % len(self.keys), *map(_as_bytes, self.keys)]
        parts += map(_as_bytes, self.arguments)
        lines = [b"*%d\r\n" % len(parts)]
        lines += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
        return b"".join(lines)


def _as_bytes(part: str | bytes | int) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()
