"""What a reader of the documents types: each command of their shell blocks, and their Python blocks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
BLOCK: Final = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    line: int
    """Of its first line, from 1."""
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Those that are run, in their order."""
    text = (ROOT / page).read_text()
    return [Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2]) for found in BLOCK.finditer(text)]


def commands(block: Block) -> Iterator[str]:
    """The whole commands of a shell block: a backslash or an open quote goes on in the next line."""
    typed = ""
    for line in block.text.splitlines():
        typed += line
        if typed.endswith("\\") or not is_whole(typed):
            typed += "\n"
            continue
        if shlex.split(typed, comments=True):
            yield typed
        typed = ""
    assert not typed, f"{block.page}:{block.line}: {typed!r} has no end"


def is_whole(typed: str) -> bool:
    """Whether no quote is open."""
    try:
        shlex.split(typed, comments=True)
    except ValueError:
        return False
    return True
