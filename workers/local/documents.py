"""The sections of Markdown documents, as a job set that every repository has."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADING: Final = re.compile(r"^#{1,6} +(?P<title>.+?) *#*$", re.MULTILINE)
FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """One headed part of a document."""

    document: str
    title: str
    text: str


def sections_of(paths: Iterable[Path], max_characters: int) -> Iterator[Section]:
    """Every section that has text, each cut to ``max_characters``; headings inside code fences are text."""
    for path in paths:
        content = path.read_text(encoding="utf-8")
        fences = [match.span() for match in FENCE.finditer(content)]
        headings = [match for match in HEADING.finditer(content) if not any(a <= match.start() < b for a, b in fences)]
        ends = [match.start() for match in headings[1:]] + [len(content)]
        for heading, end in zip(headings, ends, strict=True):
            text = content[heading.end() : end].strip()
            if text:
                yield Section(path.name, heading["title"], text[:max_characters])


def markdown_files(folder: Path) -> list[Path]:
    """The Markdown documents of a repository: its root and its ``docs``."""
    return sorted([*folder.glob("*.md"), *folder.glob("docs/**/*.md")])
