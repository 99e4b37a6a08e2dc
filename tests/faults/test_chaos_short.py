"""The fault suite's short form: one of each fault that needs little waiting; ``make chaos`` is the long form."""

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.scenarios import SHORT
from tests.chaos.stand import Plan
from tests.chaos.stock import DEFAULT_VISIBILITY_SECONDS

pytestmark = pytest.mark.slow

SEED = 11


def test_nothing_is_lost_or_answered_twice_when_everything_is_killed_once(tmp_path: Path) -> None:
    """Workers, an engine, the server and the producer killed, a worker frozen, a connection cut: one answer per job."""
    report = run(Plan(SHORT, SEED, "fleet", DEFAULT_VISIBILITY_SECONDS), tmp_path)
    assert report.holds, report.markdown()
    assert report.figures()["faults"] == SHORT.faults
    assert report.figures()["jobs_answered"] >= SHORT.jobs
    assert report.waits["worker_sigkill"].seconds, "no job was taken from a killed worker: the run showed nothing"
    assert set(report.exit_codes) == {0}
