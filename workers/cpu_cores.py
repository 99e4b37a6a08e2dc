"""Which of the machine's cores which engine keeps to, where several run on the CPU.

vLLM's CPU build binds its threads to every core that its process may use: two engines would bind to the same ones, and
each parallel loop of one would wait for the other's.
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPUS: Final = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, order=True)
class Core:
    """One logical CPU, ordered so that neighbours share what cores share: memory first, then the physical core."""

    memory_node: int
    package: int
    physical: int
    cpu: int


def usable_cores(folder: Path = CPUS) -> list[Core]:
    """The logical CPUs that this process may use, near ones beside each other."""
    return sorted(_core(cpu, folder / f"cpu{cpu}") for cpu in os.sched_getaffinity(0))


def _core(cpu: int, folder: Path) -> Core:
    nodes = [int(found[1]) for path in folder.glob("node*") if (found := re.fullmatch(r"node(\d+)", path.name))]
    topology = folder / "topology"
    return Core(
        memory_node=nodes[0] if nodes else 0,
        package=_number(topology / "physical_package_id", 0),
        physical=_number(topology / "core_id", cpu),
        cpu=cpu,
    )


def _number(path: Path, otherwise: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return otherwise  # a kernel that does not tell: every CPU counts as a core of its own


def split(cores: Sequence[Core], parts: int) -> list[tuple[Core, ...]]:
    """``parts`` runs of neighbouring cores, as equal as they come; none where there are fewer cores than parts."""
    bounds = [len(cores) * part // parts for part in range(parts + 1)]
    return [tuple(cores[first:last]) for first, last in itertools.pairwise(bounds)]
