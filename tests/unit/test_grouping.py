"""Who waits for others to begin with, on a clock that the test turns."""

from dataclasses import dataclass

import pytest

from workers.engine.entrance import NO_PATIENCE, Patience
from workers.pool.grouping import SATURATED_SECONDS, URGENT_SECONDS, Grouping, Refill

SEATS = 64
NORMAL, INTERACTIVE = 3, 0
PATIENT = Patience(0.5)


@dataclass
class Hall:
    """An engine for which groups of eight pay; memory and time are the test's."""

    now: float = 100.0
    is_memory_full: bool = False

    def __post_init__(self) -> None:
        refill = Refill(8, 0.5, lambda: self.is_memory_full)
        self.grouping = Grouping(refill, SEATS, lambda: self.now)


@pytest.fixture
def hall() -> Hall:
    """Nothing has come yet."""
    return Hall()


def test_nobody_waits_while_each_job_finds_a_seat(hall: Hall) -> None:
    """However few are left."""
    hall.grouping.saw(running=SEATS - 1, waiting=1)
    assert hall.grouping.patience(NORMAL, SEATS - 1) == NO_PATIENCE


def test_where_jobs_wait_for_seats_the_last_ones_are_taken_together(hall: Hall) -> None:
    """For a while after the last that had to wait."""
    hall.grouping.saw(running=SEATS, waiting=1)
    assert hall.grouping.patience(NORMAL, SEATS - 9) == NO_PATIENCE
    assert hall.grouping.patience(NORMAL, SEATS - 8) == PATIENT
    hall.now += SATURATED_SECONDS
    assert hall.grouping.patience(NORMAL, SEATS - 1) == NO_PATIENCE


def test_where_memory_is_full_groups_are_an_eighth_of_what_runs(hall: Hall) -> None:
    """However many seats are free: a group as for all seats would never be complete."""
    assert hall.grouping.patience(NORMAL, 20) == NO_PATIENCE
    hall.is_memory_full = True
    assert hall.grouping.patience(NORMAL, 23) == Patience(0.5, 3)
    assert hall.grouping.patience(NORMAL, 3) == Patience(0.5, 1)


def test_an_urgent_job_never_waits_and_no_group_forms_for_a_while(hall: Hall) -> None:
    """The next urgent one would have to wait for the group's long step."""
    hall.is_memory_full = True
    hall.grouping.saw(running=SEATS, waiting=1)
    assert hall.grouping.patience(INTERACTIVE, SEATS - 1) == NO_PATIENCE
    hall.now += URGENT_SECONDS / 2
    hall.grouping.saw(running=SEATS, waiting=1)
    assert hall.grouping.patience(NORMAL, SEATS - 1) == NO_PATIENCE
    hall.now += URGENT_SECONDS / 2
    hall.grouping.saw(running=SEATS, waiting=1)
    assert hall.grouping.patience(NORMAL, SEATS - 1) == PATIENT


def test_an_engine_that_gains_nothing_by_groups_has_none() -> None:
    """Its group is one job."""
    grouping = Grouping(Refill(1, 0.5, lambda: True), SEATS, lambda: 100.0)
    grouping.saw(running=SEATS, waiting=1)
    assert grouping.patience(NORMAL, SEATS - 1) == NO_PATIENCE
