"""What the documents for operators name is there: commands, settings, series, findings."""

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from config.names import group_names, setting_names
from producer.cli import COMMAND_GROUP, build_app

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["troubleshooting.md", "models.md"]


def quoted(page: str) -> str:
    """What a page has in code: between backticks, and in blocks."""
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join((*blocks, *re.findall(r"`([^`\n]+)`", rest)))


def commands() -> Iterator[str]:
    """Every command by its whole name."""
    fleet = get_command(build_app(entry_points(group=COMMAND_GROUP)))
    for name, command in getattr(fleet, "commands", {}).items():
        yield name
        yield from (f"{name} {inner}" for inner in getattr(command, "commands", {}))


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_is_one(page: str) -> None:
    """Of engine options only that they are written as such: their names are vLLM's."""
    groups = "|".join(group_names())
    named = set(re.findall(rf"(?<![\w./-])((?:{groups})\.[a-z_]+)(?![\w.]*\()", quoted(page)))
    named = {name for name in named if not name.endswith((".port", ".json", ".py", ".md", ".toml"))}
    assert named
    assert named <= {*setting_names(), "engine.options"}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_is_one(page: str) -> None:
    """With its subcommand, where it has some."""
    known = set(commands())
    named = re.findall(r"(?:^|\s)fleet ([a-z]+)(?: ([a-z]+))?", quoted(page), re.MULTILINE)
    assert named
    for first, second in named:
        assert first in known
        has_subcommands = any(name.startswith(f"{first} ") for name in known)
        assert not (second and has_subcommands) or f"{first} {second}" in known, f"fleet {first} {second}"


def test_every_series_that_troubleshooting_names_is_in_the_list_of_them() -> None:
    """``docs/metrics.md`` is held to what is exported; vLLM's own are vLLM's."""
    named = set(re.findall(r"\bfleet_[a-z_]+[a-z]\b(?!…)", quoted("troubleshooting.md")))
    listed = set(re.findall(r"\bfleet_[a-z_]+\b", (DOCS / "metrics.md").read_text()))
    assert len(named) > 5
    assert named <= listed


def test_the_full_install_has_one_doctor_and_one_list_of_models() -> None:
    """Both take the place of the producer's, and do what it did."""
    fleet = get_command(build_app(entry_points(group=COMMAND_GROUP)))
    assert isinstance(fleet, typer.core.TyperGroup)
    options = {option for parameter in fleet.commands["doctor"].params for option in parameter.opts}
    assert {"--redis-url", "--json", "--generate"} <= options
    listing = getattr(fleet.commands["models"], "commands", {})["list"]
    assert {"--redis-url", "--downloaded"} <= {option for parameter in listing.params for option in parameter.opts}
