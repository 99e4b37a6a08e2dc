"""What the bench's fleet driver refuses before it starts anything."""

from pathlib import Path

import pytest

from workers.bench.drivers.fleet import FleetDriver
from workers.bench.target import BenchError, EngineTarget


def driver(folder: Path, **settings: str) -> FleetDriver:
    """Not started, with these settings of the fleet."""
    return FleetDriver(EngineTarget("simulated", "sim", "sim", {"max_num_seqs": 8}, settings), folder)


@pytest.mark.parametrize("level", ["INFO", "debug"])
def test_levels_at_which_the_log_says_when_workers_are_ready(tmp_path: Path, level: str) -> None:
    """In either case, as in the setting itself."""
    driver(tmp_path, **{"log.level": level})
    driver(tmp_path)


def test_a_log_that_would_not_say_when_workers_are_ready_is_refused(tmp_path: Path) -> None:
    """Otherwise the bench would wait for half an hour."""
    with pytest.raises(BenchError, match="must be one of INFO, DEBUG"):
        driver(tmp_path, **{"log.level": "WARNING"})
