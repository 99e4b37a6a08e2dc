"""The demo's job set: sections of Markdown documents."""

from pathlib import Path

from workers.local.documents import markdown_files, sections_of


def test_every_section_with_text_is_one_job(tmp_path: Path) -> None:
    """Empty sections make no job; headings in code fences are text; long sections are cut."""
    document = tmp_path / "a.md"
    document.write_text("# One\ntext\n## Empty\n## Two #\n```\n# not a heading\n```\n" + "x" * 50)
    sections = list(sections_of([document], max_characters=30))
    assert [(section.title, section.document) for section in sections] == [("One", "a.md"), ("Two", "a.md")]
    assert sections[0].text == "text"
    assert sections[1].text == "```\n# not a heading\n```\nxxxxxx"


def test_documents_of_a_repository_are_its_root_and_docs(tmp_path: Path) -> None:
    """What the demo reads when no document is named."""
    for name in ("README.md", "docs/deep/b.md", "src/c.md", "d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# x\ny")
    assert [path.relative_to(tmp_path).as_posix() for path in markdown_files(tmp_path)] == [
        "README.md",
        "docs/deep/b.md",
    ]
