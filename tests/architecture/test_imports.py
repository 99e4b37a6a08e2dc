"""The import contracts in ``pyproject.toml`` hold, and each of them notices the import that it is there to refuse."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LINT_IMPORTS: Final = str(Path(sys.executable).with_name("lint-imports"))


@dataclass(frozen=True)
class Verdict:
    """What ``lint-imports`` says about a tree."""

    exit_code: int
    text: str

    @property
    def broken(self) -> set[str]:
        """Names of the contracts that do not hold."""
        return {name for name, verdict, _ in (line.partition(" BROKEN") for line in self.text.splitlines()) if verdict}


@dataclass(frozen=True)
class Tree:
    """A copy of the packages and their contracts, to be spoilt."""

    folder: Path

    def add(self, path: str, source: str) -> None:
        """Put a module into it."""
        (self.folder / path).write_text(source)

    def lint(self) -> Verdict:
        """Check its contracts."""
        done = subprocess.run(
            [LINT_IMPORTS, "--no-cache"], cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        return Verdict(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Ours as it is now."""
    for package in ("producer", "config", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return Tree(tmp_path)


def test_every_import_contract_holds(tree: Tree) -> None:
    """As they stand in ``pyproject.toml``."""
    verdict = tree.lint()
    assert verdict.exit_code == 0, verdict.text
    assert " 0 broken" in verdict.text


@pytest.mark.parametrize(
    ("path", "source", "contract"),
    [
        ("producer/stray.py", "import workers.logs", "the producer stands alone"),
        ("producer/stray.py", "import config.settings", "the producer stands alone"),
        ("config/stray.py", "import producer.keys", "the configuration stands alone"),
        ("config/stray.py", "import workers.logs", "the configuration stands alone"),
        ("workers/engine/stray.py", "import workers.pool.job", "the worker's layers"),
        ("workers/observe/stray.py", "import workers.inference.answer", "the worker's layers"),
        ("workers/pool/stray.py", "import config.settings", "only composition roots read the configuration"),
        ("workers/inference/stray.py", "import redis", "answering a job knows no queue"),
        ("workers/engine/stray.py", "def f() -> None:\n    import kombu", "answering a job knows no queue"),
        ("workers/engine/stray.py", "import vllm", "only the vLLM engine imports vllm"),
        ("workers/pool/stray.py", "from vllm.outputs import RequestOutput", "only the vLLM engine imports vllm"),
        ("workers/bench/stray.py", "import vllm", "only the vLLM engine imports vllm"),
        ("workers/bench/stray.py", "import config.settings", "only composition roots read the configuration"),
        ("workers/pool/stray.py", "import workers.bench.load", "the worker's layers"),
        ("workers/pool/stray.py", "import torch", "only the tiny model is made with torch"),
        ("workers/models/stray.py", "import transformers", "nobody imports transformers"),
        ("workers/pool/stray.py", "import huggingface_hub", "only the models' own package asks the model hub"),
        ("producer/stray.py", "from celery import Celery", "the producer needs no Celery"),
        ("producer/stray.py", "import producer.canvas", "the producer's canvas is for its users alone"),
    ],
)
def test_a_contract_breaks_on_the_import_that_it_refuses(tree: Tree, path: str, source: str, contract: str) -> None:
    """A module with one such import fails the check under that contract's name."""
    tree.add(path, source + "\n")
    verdict = tree.lint()
    assert verdict.exit_code == 1, verdict.text
    assert contract in verdict.broken
    assert path.removesuffix(".py").replace("/", ".") in verdict.text


def test_a_module_of_workers_that_has_no_layer_breaks_the_build(tree: Tree) -> None:
    """A stray ``workers/utils.py`` does, though nobody imports it and it imports nothing."""
    tree.add("workers/utils.py", '"""Odds and ends."""\n')
    verdict = tree.lint()
    assert verdict.exit_code == 1, verdict.text
    assert "the worker's layers" in verdict.broken
    assert "utils" in verdict.text


def test_modules_that_import_each_other_break_the_build(tree: Tree) -> None:
    """Also when one of them does so inside a function."""
    tree.add("workers/pool/stray.py", "import workers.pool.other\n")
    tree.add("workers/pool/other.py", "def f() -> None:\n    import workers.pool.stray\n")
    verdict = tree.lint()
    assert verdict.exit_code == 1, verdict.text
    assert "packages have no cycles" in verdict.broken
    assert "other" in verdict.text
