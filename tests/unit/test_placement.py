"""Which GPUs which worker process gets."""

import pytest

from workers.placement import PlacementError, Slot, place, present_gpus


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


@pytest.mark.parametrize(("value", "gpus"), [("1,3", ["1", "3"]), ("", []), ("-1", [])])
def test_an_existing_cuda_visible_devices_bounds_what_is_there(value: str, gpus: list[str]) -> None:
    """A batch scheduler's choice is respected."""
    assert present_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus
