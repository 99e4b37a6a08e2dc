"""Every line that our code logs has a fixed ``action`` word, and docs/logs.md has every word and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.logs import handlers, lines

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
BY_FORM = {lines.LIBRARY, lines.WARNING, lines.PRINTED, handlers.LOST}
"""Words that the form of lines gives to what others say."""


def log_calls(source: str) -> Iterator[ast.Call]:
    """Calls of a logger's methods: on a name like ``log``, or on what ``getLogger`` returns."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            called_on = ast.unparse(node.func.value)
            if re.search(r"(^|[._])(log|logger)$|getLogger\(", called_on, re.IGNORECASE):
                yield node


def words_of(call: ast.Call) -> set[str]:
    """The words that this call may log; empty: it has none."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if not isinstance(given, ast.Dict):
        return set()
    values = [value for key, value in zip(given.keys, given.values, strict=True) if _is(key, "action")]
    said = [
        part for value in values for part in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
    ]
    return {part.value for part in said if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def _is(node: ast.expr | None, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def sources() -> list[Path]:
    """Every file that ships."""
    return [path for package in ("producer", "config", "workers") for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_line_has_an_action() -> None:
    """As a literal, so that it can be looked for."""
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sources()
        for call in log_calls(path.read_text())
        if not words_of(call)
    ]
    assert without == []


def test_the_table_has_every_action_and_no_other() -> None:
    """Whoever filters by a word finds it there."""
    said = {word for path in sources() for call in log_calls(path.read_text()) for word in words_of(call)}
    written = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/logs.md").read_text(), re.MULTILINE)
    assert len(said) > 50
    assert sorted(written) == sorted(said | BY_FORM)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("log.info('x')", [set()]),
        ("self.logger.error('x', extra={'job_id': 1})", [set()]),
        ("LOGGER.warning('x', extra={'action': 'a'})", [{"a"}]),
        ("log.info('x', extra={'action': 'a' if b else 'c', **ids})", [{"a", "c"}]),
        ("logging.getLogger(n).exception('x', extra={'action': name})", [set()]),
        ("math.log(2)\nself._log(event)\nlog.write('x')\nrecord.info()", []),
    ],
)
def test_what_counts_as_a_line(source: str, words: list[set[str]]) -> None:
    """The test's own eyes."""
    assert [words_of(call) for call in log_calls(source)] == words
