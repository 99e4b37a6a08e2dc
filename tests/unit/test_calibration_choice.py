"""How many engines are worth it: the rule over measured totals, and what a calibration does step by step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from workers.calibration.choice import CalibrationFailed, Choice, engines_worth_it, is_worth_another
from workers.calibration.contender import DoesNotAnswer, DoesNotStart, Ready, WrongSettings
from workers.calibration.load import Phase
from workers.calibration.measure import Calibration
from workers.cpu_cores import Core
from workers.placement import Slot

CORES = tuple(Core(0, 0, number, number) for number in range(4))
AMPLE = Ready(max_num_seqs=256, max_model_len=2048, kv_cache_tokens=10_000_000)


@pytest.mark.parametrize(
    ("totals", "engines"),
    [
        ([100.0], 1),
        ([100.0, 166.0, 175.0], 2),  # the third adds 5 %
        ([100.0, 104.0], 1),  # noise, or next to nothing
        ([100.0, 114.9], 1),
        ([100.0, 115.1], 2),
        ([100.0, 90.0], 1),  # two are slower together
        ([100.0, 166.0, 240.0, 300.0], 4),
        ([100.0, 101.0, 300.0], 1),  # what comes after one that did not pay is no reason
    ],
)
def test_engines_are_added_as_long_as_each_adds_enough(totals: list[float], engines: int) -> None:
    """The smallest number that the next one does not beat by 15 %."""
    assert engines_worth_it(totals) == engines


@pytest.mark.parametrize(
    ("totals", "is_wanted"),
    [
        ([], True),
        ([100.0], True),
        ([100.0, 120.0], True),
        ([100.0, 104.0], False),
        ([100.0, 160.0, 220.0, 300.0], False),
    ],
)
def test_no_more_is_measured_than_decides(totals: list[float], *, is_wanted: bool) -> None:
    """Every engine costs a start; four are the most here."""
    assert is_worth_another(totals, most=4) == is_wanted


@dataclass
class Device:
    """Stands for a GPU or a CPU with engines on it: what they say and make follows from a plan."""

    total_of: Callable[[int], float]
    """Tokens/s of so many engines together."""
    fails: dict[int, Exception] = field(default_factory=dict)
    """What the start raises where the memory is divided into so many parts."""
    fails_as: dict[int, Exception] = field(default_factory=dict)
    """What the start of the engine of this number raises."""
    says: dict[int, Ready] = field(default_factory=dict)
    """What an engine says of itself where the memory is divided into so many parts."""
    slots: list[Slot] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    most_running: int = 0

    def start(self, slot: Slot) -> Any:  # noqa: ANN401 - a stand-in
        """A new engine."""
        self.slots.append(slot)
        return Planned(self, slot)

    def calibrated(self, *, on_gpu: bool = True) -> Choice:
        """The outcome; nothing is left running, whatever it is."""
        try:
            return Calibration(("0",) if on_gpu else (), CORES, self.start).choice()
        finally:
            assert self.running == []


class Planned:
    """One engine of a :class:`Device`."""

    def __init__(self, device: Device, slot: Slot) -> None:
        self._device = device
        self._slot = slot
        device.running.append(slot.index)
        device.most_running = max(device.most_running, len(device.running))

    def ready(self) -> Ready:
        """As planned."""
        failure = self._device.fails.get(self._slot.engines_on_device) or self._device.fails_as.get(self._slot.index)
        if failure is not None:
            raise failure
        return self._device.says.get(self._slot.engines_on_device, AMPLE)

    def begin(self, phase: Phase) -> None:
        """All begin at one moment."""
        assert phase.measured_seconds > 0

    def tokens_per_second(self) -> float:
        """An equal part of the total."""
        count = len(self._device.running)
        return self._device.total_of(count) / count

    def stop(self) -> None:
        """One less."""
        self._device.running.remove(self._slot.index)


def small_model(engines: int) -> float:
    """Two pay, three do not."""
    return {1: 22_000.0, 2: 37_000.0}.get(engines, 39_000.0)


def test_engines_join_one_by_one_in_shares_of_the_largest_number() -> None:
    """Each is started once, and measured beside those that run already."""
    device = Device(small_model)
    choice = device.calibrated()
    assert (choice.engines_per_gpu, [one.engines for one in choice.measured]) == (2, [1, 2, 3])
    assert [(slot.index, slot.gpus, slot.engines_on_device) for slot in device.slots] == [
        (number, ("0",), 4) for number in range(3)
    ]
    assert "3 engines make +5% of the total of 2" in choice.reason


def test_no_more_than_four_are_tried_on_a_gpu() -> None:
    """However well they do."""
    device = Device(lambda engines: 1_000.0 * engines)
    choice = device.calibrated()
    assert (choice.engines_per_gpu, len(device.slots)) == (4, 4)
    assert "4 is the most" in choice.reason


def test_a_model_too_large_for_a_quarter_is_compared_in_halves() -> None:
    """A share must hold the weights."""
    device = Device(small_model, fails={4: DoesNotStart("no memory")})
    choice = device.calibrated()
    assert (choice.engines_per_gpu, [one.engines for one in choice.measured]) == (2, [1, 2])
    assert [slot.engines_on_device for slot in device.slots] == [4, 2, 2]


def test_a_share_must_hold_a_kv_cache_for_all_sequences() -> None:
    """Otherwise engines would wait for memory instead of for Python, and a service for its jobs."""
    tight = Ready(max_num_seqs=256, max_model_len=2048, kv_cache_tokens=256 * 256 - 1)
    device = Device(small_model, says={4: tight})
    assert [one.engines for one in device.calibrated().measured] == [1, 2]
    short = Ready(max_num_seqs=256, max_model_len=64, kv_cache_tokens=256 * 64)
    assert len(Device(small_model, says={4: short}).calibrated().measured) == 3


def test_a_model_that_fits_once_needs_no_measurement() -> None:
    """The choice is kept all the same: to find out again would take as long."""
    device = Device(small_model, fails={4: DoesNotStart("no memory"), 2: DoesNotStart("no memory")})
    choice = device.calibrated()
    assert (choice.engines_per_gpu, choice.measured) == (1, ())
    assert choice.reason == "two engines do not fit into the memory"
    assert [slot.engines_on_device for slot in device.slots] == [4, 2, 1]


@pytest.mark.parametrize("error", [DoesNotStart("no memory left"), WrongSettings("odd")])
def test_a_further_engine_that_does_not_start_ends_the_comparison(error: Exception) -> None:
    """What was measured until then decides."""
    choice = Device(lambda engines: 1_000.0 * engines, fails_as={2: error}).calibrated()
    assert choice.engines_per_gpu == 2
    assert choice.reason == f"3 engines do not work: {error}"


def test_wrong_settings_are_not_tried_in_other_shares() -> None:
    """The first engine says what is wrong, and the worker will say it again."""
    device = Device(small_model, fails={4: WrongSettings("unknown engine option")})
    with pytest.raises(CalibrationFailed, match="unknown engine option"):
        device.calibrated()
    assert len(device.slots) == 1


def test_an_engine_that_starts_nowhere_fails_the_calibration() -> None:
    """Not even alone: it is no choice, and is not kept."""
    device = Device(small_model, fails={parts: DoesNotStart(f"broken in {parts}") for parts in (4, 2, 1)})
    with pytest.raises(CalibrationFailed, match="broken in 1"):
        device.calibrated()


def test_engines_that_generate_nothing_fail_the_calibration() -> None:
    """Nothing to compare."""
    with pytest.raises(CalibrationFailed, match="generated nothing"):
        Device(lambda _: 0.0).calibrated()


def test_an_engine_that_fails_under_load_ends_the_comparison() -> None:
    """Beside others: what was measured decides. Alone: there is nothing."""

    def total_of(engines: int) -> float:
        if engines > 1:
            raise DoesNotAnswer("its engine died")
        return 100.0

    choice = Device(total_of).calibrated()
    assert (choice.engines_per_gpu, choice.reason) == (1, "2 engines do not work: its engine died")


def test_on_a_cpu_each_number_starts_anew_on_its_own_cores() -> None:
    """Its threads are bound at the start; two are the most."""
    device = Device(lambda engines: 100.0 * engines)
    choice = device.calibrated(on_gpu=False)
    assert (choice.engines_per_gpu, device.most_running) == (2, 2)
    assert [slot.engines_on_device for slot in device.slots] == [1, 2, 2]
    assert [len(slot.cores) for slot in device.slots] == [0, 2, 2]
    assert not any(slot.gpus for slot in device.slots)
