"""What the supervisor tells a worker process on its command line."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.first_tokens import ALONE, FirstTokens
from workers.parent import add_parent_option
from workers.supervisor import overrides_of


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the supervisor tells a worker process."""

    config_file: Path | None
    overrides: dict[str, Any]
    slot: int
    ready_file: Path | None
    engines_on_device: int = 1
    """How many worker processes share this one's GPU, or the machine's CPU."""
    cores: tuple[int, ...] = ()
    """The cores to keep to; none named: all."""
    first_tokens: FirstTokens = ALONE
    """How its engine shares a GPU with those beside it."""
    parent: int | None = None
    """Id of the process with which this one ends; None: it is on its own."""


def parse(argv: list[str]) -> Arguments:
    """Of its command line, and of the settings that travel in the environment."""
    parser = argparse.ArgumentParser(prog="python -m workers.process")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--engines-on-device", type=int, default=1)
    parser.add_argument("--lanes", default="")
    parser.add_argument("--cores", default="", help="numbers with commas")
    parser.add_argument("--announce-first-tokens", type=Path, metavar="FILE")
    parser.add_argument("--yield-to", type=Path, action="append", default=[], metavar="FILE")
    add_parent_option(parser)
    given = parser.parse_args(argv)
    overrides = overrides_of(os.environ)
    if given.lanes:
        overrides["worker.lanes"] = given.lanes
    return Arguments(
        config_file=given.config,
        overrides=overrides,
        slot=given.slot,
        ready_file=given.ready_file,
        engines_on_device=given.engines_on_device,
        cores=tuple(int(core) for core in given.cores.split(",") if core),
        first_tokens=FirstTokens(given.announce_first_tokens, tuple(given.yield_to)),
        parent=given.parent,
    )
