"""Every link of our documents to a file or a heading of this repository leads there."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

ROOT: Final = Path(__file__).parents[2]
FENCED: Final = re.compile(r"^( *)(```+).*?^\1\2", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
OUTSIDE: Final = re.compile(r"[a-z]+:")


def documents() -> list[Path]:
    """In the root, and in the folders below it that are nobody's installation or output."""
    ours = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return [*ROOT.glob("*.md"), *(document for folder in ours for document in folder.rglob("*.md"))]


@cache
def text_of(document: Path) -> str:
    """Without its code blocks: a comment of the shell is no heading."""
    return FENCED.sub("", document.read_text())


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """The names that GitHub gives its headings; repeated headings are numbered there."""
    found: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.*?)[ #]*$", text_of(document), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] += 1
    return frozenset(f"{name}-{again}" if again else name for name, times in found.items() for again in range(times))


def leads_nowhere(document: Path, target: str) -> bool:
    """Whether a reader who follows this link of the document finds nothing."""
    path, _, anchor = unquote(target).partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists():
        return True
    return bool(anchor) and file.suffix == ".md" and anchor not in anchors_of(file)


def test_every_link_within_the_repository_leads_somewhere() -> None:
    """Files are renamed and headings reworded; the links to them are elsewhere."""
    links = [
        (document.relative_to(ROOT).as_posix(), target, leads_nowhere(document, target))
        for document in documents()
        for target in LINK.findall(text_of(document))
        if not OUTSIDE.match(target)
    ]
    assert len(links) > 100, "the documents' links were not found"
    assert [(document, target) for document, target, is_broken in links if is_broken] == []
