"""What the doctor makes of the server's waits."""

import pytest

from producer.doctor import Level
from producer.server_latency import judge_latency


@pytest.mark.parametrize(
    ("milliseconds", "level"),
    [([0.1] * 100, Level.OK), ([0.1] * 98 + [500.0] * 2, Level.OK), ([12.0] * 100, Level.WARNING)],
)
def test_the_median_is_judged_and_the_slowest_are_shown(milliseconds: list[float], level: Level) -> None:
    """Two slow answers in a hundred are told, and are no reason to worry."""
    finding = judge_latency([each / 1000 for each in milliseconds])
    assert finding.level is level
    assert f"{max(milliseconds):.2f} ms (99 of 100)" in finding.sentence
