"""Budgets of the code that ships: files and functions stay short, names say what they hold, nothing goes round."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import grimp
import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("producer", "config", "workers")
MAX_FILE_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 40
MAX_PARAMETERS: Final = 5
NAMES_THAT_SAY_NOTHING: Final = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}
SILENCED: Final = re.compile(r"#\s*(?:ruff:\s*)?noqa(?!:)|#\s*(?:ruff:\s*)?noqa:[^#]*\b(?:C901|PLR09\d\d)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[Path]:
    """Every Python file that ships, or is there to be copied."""
    for folder in (*PACKAGES, "examples"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def functions(source: str) -> Iterator[Function]:
    """Every function and method, the nested ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def line_count(source: str, function: Function) -> int:
    """Lines of code from ``def`` to the end: no decorators, docstring, comment lines or blank lines."""
    docstring: set[int] = set()
    if ast.get_docstring(function, clean=False) is not None:
        first = function.body[0]
        docstring.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    numbered = enumerate(source.splitlines()[: function.end_lineno], start=1)
    own = [line.strip() for number, line in numbered if number >= function.lineno and number not in docstring]
    return sum(bool(line) and not line.startswith("#") for line in own)


def parameter_count(function: Function) -> int:
    """Everything that a caller may pass, ``*args`` and ``**kwargs`` counted once each; not ``self`` and ``cls``."""
    declared = function.args
    named = [*declared.posonlyargs, *declared.args, *declared.kwonlyargs]
    if named and named[0].arg in {"self", "cls"}:
        del named[0]
    return len(named) + sum(variadic is not None for variadic in (declared.vararg, declared.kwarg))


def place(path: Path, line: int) -> str:
    """``file:line`` as editors open it."""
    return f"{path.relative_to(ROOT)}:{line}"


def test_no_file_is_too_long() -> None:
    """At most 300 lines."""
    lengths = {place(path, 1): len(path.read_text().splitlines()) for path in sources()}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    """At most 40 lines of code: what explains the code does not count against it."""
    lengths = {
        f"{place(path, function.lineno)} {function.name}": line_count(source, function)
        for path in sources()
        for source in [path.read_text()]
        for function in functions(source)
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_no_function_takes_too_many_parameters() -> None:
    """At most five; what needs more takes a dataclass."""
    counts = {
        f"{place(path, function.lineno)} {function.name}": parameter_count(function)
        for path in sources()
        for function in functions(path.read_text())
    }
    assert counts
    assert {name: count for name, count in counts.items() if count > MAX_PARAMETERS} == {}


def test_every_module_is_named_for_what_it_holds() -> None:
    """No utils, helpers, manager, common or misc: whatever fits there belongs somewhere else."""
    named = {part: path for path in sources() for part in (path.stem, path.parent.name)}
    assert {name: str(path) for name, path in named.items() if name in NAMES_THAT_SAY_NOTHING} == {}


def test_no_complexity_finding_is_silenced() -> None:
    """A ``noqa`` for C901 or PLR09xx, or one without a code, would hide a function that does too much."""
    silenced = [
        place(path, number)
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if SILENCED.search(line)
    ]
    assert silenced == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions and for type checking count too."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > len(imports)
    TopologicalSorter(imports).prepare()  # names the modules of a cycle in its CycleError


@pytest.mark.parametrize(
    ("source", "lines", "parameters"),
    [
        ("def f(): pass", 1, 0),
        ("@cached\ndef f(a, /, b, *c, d, **e):\n    '''One.\n\n    Two.\n    '''\n\n    return a", 2, 5),
        ("class C:\n    async def m(self, a):\n        # why\n        return a", 2, 1),
        ("class C:\n    @classmethod\n    def m(cls):\n        'Nothing.'", 1, 0),
    ],
)
def test_lines_and_parameters_are_counted_as_documented(source: str, lines: int, parameters: int) -> None:
    """Docstring, decorators, comments, blank lines, ``self`` and ``cls`` are left out."""
    [function] = functions(source)
    assert (line_count(source, function), parameter_count(function)) == (lines, parameters)


@pytest.mark.parametrize(
    ("line", "is_silenced"),
    [
        ("def f():  # noqa: C901", True),
        ("def f():  # noqa: ANN401, PLR0913 - a reason", True),
        ("def f():  # noqa", True),
        ("# ruff: noqa: PLR0915", True),
        ("def f():  # noqa: ANN401 - Celery's", False),
    ],
)
def test_a_silenced_complexity_finding_is_recognised(line: str, is_silenced: bool) -> None:  # noqa: FBT001 - a table
    """Other codes may be silenced, with their reason."""
    assert bool(SILENCED.search(line)) == is_silenced
