"""Cores as the kernel describes them, and how several engines on a CPU divide them."""

import os
from pathlib import Path

import pytest

from workers.cpu_cores import Core, split, usable_cores


def described(folder: Path, cpu: int, *, node: int, physical: int) -> None:
    """One logical CPU as ``/sys`` shows it."""
    topology = folder / f"cpu{cpu}" / "topology"
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text(f"{node}\n")
    (topology / "core_id").write_text(f"{physical}\n")
    (folder / f"cpu{cpu}" / f"node{node}").mkdir()


def test_siblings_and_cores_of_one_memory_node_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers say nothing: here CPU 0 and CPU 4 are the two threads of one core, as on most machines."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for cpu in range(8):
        described(tmp_path, cpu, node=cpu % 2, physical=cpu % 4)
    parts = split(usable_cores(tmp_path), 2)
    assert [[core.cpu for core in part] for part in parts] == [[0, 4, 2, 6], [1, 5, 3, 7]]
    assert [{core.memory_node for core in part} for part in parts] == [{0}, {1}]


def test_a_kernel_that_does_not_tell_leaves_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may show no topology."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1})
    assert usable_cores(tmp_path) == [Core(0, 0, 1, 1), Core(0, 0, 3, 3)]


@pytest.mark.parametrize(("cores", "parts", "sizes"), [(16, 3, [5, 5, 6]), (2, 2, [1, 1]), (1, 2, [0, 1])])
def test_parts_are_as_equal_as_they_come(cores: int, parts: int, sizes: list[int]) -> None:
    """No core is left over, none is in two parts."""
    given = [Core(0, 0, number, number) for number in range(cores)]
    shares = split(given, parts)
    assert [len(share) for share in shares] == sizes
    assert [core for share in shares for core in share] == given
