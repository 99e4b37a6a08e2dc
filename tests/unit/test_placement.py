"""Which GPUs which worker process gets."""

from pathlib import Path

import pytest

from tests.fake_driver import install_program
from workers.cpu_cores import Core
from workers.placement import (
    PlacementError,
    Slot,
    on_own_cores,
    place,
    present_gpus,
    with_interactive,
    with_less_for_others,
    with_yielding,
)
from workers.process_arguments import parse

CORES = [Core(memory_node=number // 2, package=0, physical=number, cpu=number) for number in range(4)]


@pytest.mark.parametrize(
    ("wanted", "present", "per_engine", "slots"),
    [
        ("auto", [], 1, [()]),  # no GPU: one worker on the CPU
        ("none", ["0", "1"], 1, [()]),
        ("auto", ["0", "1"], 1, [("0",), ("1",)]),
        ("all", ["0", "1"], 2, [("0", "1")]),
        ("0,2", ["0", "1", "2"], 1, [("0",), ("2",)]),
        ("3,1,2,0", ["0", "1", "2", "3"], 2, [("3", "1"), ("2", "0")]),
        ("GPU-1a2b", [], 1, [("GPU-1a2b",)]),  # a UUID is the driver's business
    ],
)
def test_one_slot_per_engine(wanted: str, present: list[str], per_engine: int, slots: list[tuple[str, ...]]) -> None:
    """Order is kept; each engine gets its own GPUs."""
    assert place(wanted, present, per_engine) == [Slot(index, gpus) for index, gpus in enumerate(slots)]


@pytest.mark.parametrize(
    ("wanted", "present", "per_engine", "complaint"),
    [
        ("all", [], 1, "no GPU on this machine"),
        ("0,0", ["0"], 1, "twice"),
        ("0,7", ["0", "1"], 1, "7: this machine has 0, 1"),
        ("0,1,2", ["0", "1", "2"], 2, "multiple of 2"),
    ],
)
def test_gpus_that_do_not_fit_are_refused_with_what_would(
    wanted: str, present: list[str], per_engine: int, complaint: str
) -> None:
    """Before any process starts."""
    with pytest.raises(PlacementError, match=complaint):
        place(wanted, present, per_engine)


@pytest.mark.parametrize(
    ("present", "slots"),
    [
        (["0"], [("0",), ("0",)]),
        # The first engine of every GPU comes first: those start at once, and keep their ports when N changes.
        (["0", "1"], [("0",), ("1",), ("0",), ("1",)]),
        ([], [(), ()]),  # two on the CPU
    ],
)
def test_engines_that_share_a_gpu_have_slots_of_their_own(present: list[str], slots: list[tuple[str, ...]]) -> None:
    """So their ports, node names and ready files differ; each knows how many it shares with."""
    assert place("auto", present, 1, 2) == [Slot(index, gpus, 2) for index, gpus in enumerate(slots)]


def test_the_last_engines_may_be_for_interactive_jobs_alone() -> None:
    """The others are for all else; at least one of those is left."""
    slots = place("auto", ["0", "1"], 1, 2)
    assert [slot.lanes for slot in with_interactive(slots, 1)] == ["others", "others", "others", "interactive"]
    assert with_interactive(slots, 1)[3].arguments() == ["--engines-on-device", "2", "--lanes", "interactive"]
    assert with_interactive(slots, 0) == slots
    with pytest.raises(PlacementError, match="interactive_engines 4 of 4: no engine is left"):
        with_interactive(slots, 4)


def shared_by_two() -> list[Slot]:
    """Two engines on GPU 0, two on GPU 1; the last one is for interactive jobs."""
    return with_interactive(place("auto", ["0", "1"], 1, 2), 1)


def test_who_shares_a_gpu_with_an_interactive_engine_may_use_less_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interactive one has all, and so has who is alone with its like; without the setting nothing is asked."""
    monkeypatch.setenv("PATH", str(install_program(tmp_path, "#!/bin/sh\nread line\n", "nvidia-cuda-mps-control")))
    slots = with_less_for_others(shared_by_two(), 60)
    found = [slot.environment({}).get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE") for slot in slots]
    assert [slot.gpus for slot in slots] == [("0",), ("1",), ("0",), ("1",)]
    assert found == [None, "60", None, None]
    monkeypatch.setenv("PATH", "")
    assert with_less_for_others(shared_by_two(), 100) == shared_by_two()


@pytest.mark.parametrize("script", ["", "#!/bin/sh\nexit 1\n"])
def test_to_use_less_of_a_gpu_takes_nvidias_service(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not installed, or its daemon does not run: without it the driver would ignore the limit and say nothing."""
    folder = install_program(tmp_path, script, "nvidia-cuda-mps-control") if script else tmp_path
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(PlacementError, match="nvidia-cuda-mps-control -d"):
        with_less_for_others(shared_by_two(), 60)


def test_to_use_less_of_a_gpu_takes_somebody_to_leave_it_to() -> None:
    """Each engine has a GPU to itself, or there is no GPU: the setting would do nothing."""
    for slots in (with_interactive(place("auto", ["0", "1"], 1), 1), with_interactive(place("none", [], 1, 2), 1)):
        with pytest.raises(PlacementError, match="no GPU is shared"):
            with_less_for_others(slots, 60)


def test_an_engine_over_several_gpus_has_them_to_itself() -> None:
    """Its ranks wait for each other in every step; a neighbour's steps in between would hold up all of them."""
    with pytest.raises(PlacementError, match="--engines-per-gpu 1"):
        place("all", ["0", "1"], 2, 2)


def test_engines_on_the_cpu_keep_to_cores_of_their_own() -> None:
    """Near ones, and all of them."""
    slots = on_own_cores(place("none", [], 1, 2), CORES)
    assert [slot.cores for slot in slots] == [tuple(CORES[:2]), tuple(CORES[2:])]


@pytest.mark.parametrize(("wanted", "engines"), [("none", 1), ("0,1", 1), ("0", 2)])
def test_nobody_else_is_bound_to_cores(wanted: str, engines: int) -> None:
    """One engine on the CPU uses all of it, and a GPU's engines are the kernel's to place."""
    assert all(not slot.cores for slot in on_own_cores(place(wanted, ["0", "1"], 1, engines), CORES))


def test_more_engines_than_cores_are_refused() -> None:
    """Two on one core would take turns."""
    with pytest.raises(PlacementError, match="use --engines-per-gpu 4 at most"):
        on_own_cores(place("none", [], 1, 5), CORES)


@pytest.mark.parametrize(("value", "gpus"), [("1,3", ["1", "3"]), ("", []), ("-1", [])])
def test_an_existing_cuda_visible_devices_bounds_what_is_there(value: str, gpus: list[str]) -> None:
    """A batch scheduler's choice is respected."""
    assert present_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_who_shares_a_device_with_an_interactive_engine_may_yield_to_its_first_tokens(tmp_path: Path) -> None:
    """Through a file that is there before either starts; whoever shares with none is left alone."""
    slots = with_yielding(shared_by_two(), tmp_path)
    file = tmp_path / "first-tokens-3"
    assert [slot.arguments()[4:] for slot in slots] == [
        [],
        ["--yield-to", str(file)],
        [],
        ["--announce-first-tokens", str(file)],
    ]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert [parse(slot.arguments()).first_tokens for slot in slots] == [slot.first_tokens for slot in slots]
    on_cpu = with_yielding(with_interactive(place("none", [], 1, 2), 1), tmp_path)
    assert on_cpu[0].first_tokens.yielded_to == (on_cpu[1].first_tokens.announced_in,)


def test_to_yield_takes_somebody_to_yield_to(tmp_path: Path) -> None:
    """Each engine has a GPU to itself, or there is no interactive one."""
    for slots in (with_interactive(place("auto", ["0", "1"], 1), 1), place("auto", ["0"], 1, 2)):
        with pytest.raises(PlacementError, match=r"others_yield: no GPU is shared.*interactive_engines"):
            with_yielding(slots, tmp_path)
    assert list(tmp_path.iterdir()) == []
