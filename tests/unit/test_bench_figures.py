"""Percentiles, spreads and what they are made of."""

import pytest

from workers.bench.figures import distribution, percentile, spread, spreads


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(number) for number in range(101)], 0.95, 95.0),
        ([0.0, 10.0], 0.0, 0.0),
        ([0.0, 10.0], 1.0, 10.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(values: list[float], share: float, expected: float) -> None:
    """Interpolated; the order of the values does not matter."""
    assert percentile(values, share) == pytest.approx(expected)


def test_no_values_have_no_percentile() -> None:
    """An empty pass must not look like a fast one."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_distribution_has_six_figures_named_after_it() -> None:
    """Mean, three percentiles, min and max; none of nothing."""
    figures = distribution("wait_ms", [1.0, 2.0, 3.0])
    assert figures == {
        "wait_ms_mean": 2.0,
        "wait_ms_p50": 2.0,
        "wait_ms_p95": pytest.approx(2.9),
        "wait_ms_p99": pytest.approx(2.98),
        "wait_ms_min": 1.0,
        "wait_ms_max": 3.0,
    }
    assert distribution("wait_ms", []) == {}


def test_the_spread_of_repeats_tells_their_range_and_deviation() -> None:
    """The sample's standard deviation; a single repeat has none."""
    several, single = spread([1.0, 2.0, 3.0]), spread([5.0])
    assert (several.mean, several.min, several.max, several.stdev) == (2.0, 1.0, 3.0, 1.0)
    assert (single.mean, single.stdev) == (5.0, 0.0)


def test_only_what_every_repeat_measured_has_a_spread() -> None:
    """A figure that one repeat lacks would be a mean of fewer."""
    found = spreads([{"a": 1.0, "b": 1.0}, {"a": 3.0}])
    assert set(found) == {"a"}
    assert found["a"].mean == 2.0
    assert spreads([]) == {}
