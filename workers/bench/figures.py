"""From raw values to the figures of a report."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MILLISECONDS: Final = 1000
CUTS: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

Metrics = dict[str, float]
"""Figures of one repeat by name; the unit is in the name."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of the values do not exceed, interpolated between its two neighbours.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values, so no percentile")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def distribution(name: str, values: Sequence[float]) -> Metrics:
    """Mean, p50, p95, p99, min and max, each named after ``name``; empty without values."""
    if not values:
        return {}
    cuts = {f"{name}_{cut}": percentile(values, share) for cut, share in CUTS.items()}
    return {
        f"{name}_mean": statistics.fmean(values),
        **cuts,
        f"{name}_min": min(values),
        f"{name}_max": max(values),
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the repeats of a run."""

    mean: float
    min: float
    max: float
    stdev: float
    """Of the sample; 0 for a single repeat."""


def spread(values: Sequence[float]) -> Spread:
    """How far the repeats lie apart."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), min(values), max(values), deviation)


def spreads(repeats: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of every figure that all repeats have."""
    if not repeats:
        return {}
    return {
        name: spread([repeat[name] for repeat in repeats])
        for name in repeats[0]
        if all(name in repeat for repeat in repeats)
    }
