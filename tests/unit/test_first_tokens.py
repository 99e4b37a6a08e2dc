"""What engines on one GPU tell each other of first tokens."""

from pathlib import Path

import pytest

from workers import first_tokens
from workers.first_tokens import COUNTS_SECONDS, LATELY_SECONDS, MAX_WAIT_SECONDS, Announcement, Yielding, create


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """As time's."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As time's."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The module's clock."""
    clock = Clock()
    monkeypatch.setattr(first_tokens, "time", clock)
    return clock


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Of two interactive engines."""
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        create(path)
    return paths


def test_nobody_waits_where_nothing_is_owed(files: list[Path], clock: Clock) -> None:
    """At the start, and once it is settled; that there was something is remembered for a while."""
    yielding, announcement = Yielding(files), Announcement(files[1])
    assert yielding.wait() == 0.0
    assert not yielding.was_lately
    announcement.owe()
    announcement.settle()
    assert yielding.wait() == 0.0
    assert yielding.was_lately
    clock.sleep(LATELY_SECONDS)
    assert not yielding.was_lately


def test_who_yields_waits_for_any_of_them_for_a_bounded_time(files: list[Path], clock: Clock) -> None:
    """Then it goes on with a step, and waits again for the next."""
    yielding, announcements = Yielding(files), [Announcement(file) for file in files]
    for announcement in announcements:
        announcement.owe()
        assert yielding.wait() == pytest.approx(MAX_WAIT_SECONDS, abs=0.001)
        announcement.settle()
    announcements[0].owe()
    assert [yielding.wait() > 0 for _ in range(2)] == [True, True]
    assert clock.now > 1000.0


@pytest.mark.usefixtures("clock")
def test_who_was_killed_holds_nobody_up(files: list[Path]) -> None:
    """What it owed counts for a moment only."""
    Announcement(files[0]).owe()
    yielding = Yielding(files)
    waits = [yielding.wait() for _ in range(4)]
    assert sum(waits) == pytest.approx(COUNTS_SECONDS, abs=0.002)
    assert waits[-1] == 0.0
