"""Draws one panel of a dashboard as Grafana would, or near enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes

UNITS: Final = {"s": "seconds", "percentunit": "of 1", "reqps": "jobs/s", "bytes": "bytes", "short": ""}
GAP_SECONDS: Final = 8.0
"""Between two samples of a line: longer ones are left open, as Grafana does."""
MOST_NAMES: Final = 6


@dataclass(frozen=True)
class Sampled:
    """One line: what Prometheus answered, by seconds since the picture's left end."""

    name: str
    moments: Sequence[float]
    values: Sequence[float]

    @property
    def is_flat(self) -> bool:
        """It says nothing: always 0, or not a number."""
        return not any(value and math.isfinite(value) for value in self.values)


def draw(axes: Axes, panel: dict[str, Any], lines: list[Sampled], seconds: float) -> None:
    """Into these axes."""
    axes.set_title(panel["title"], fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    if panel["type"] == "stat":
        _draw_figure(axes, lines)
        return
    axes.set_xlim(0, seconds)
    if not lines:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", fontsize=8, color="gray")
    elif panel["type"] == "heatmap":
        _draw_buckets(axes, lines)
    else:
        _draw_lines(axes, lines)
        axes.set_ylabel(UNITS[panel["fieldConfig"]["defaults"]["unit"]], fontsize=6)


def _draw_figure(axes: Axes, lines: list[Sampled]) -> None:
    axes.set_axis_off()
    text = f"{lines[0].values[-1]:,.0f}" if lines else "no data"
    axes.text(0.0, 0.1, text, transform=axes.transAxes, fontsize=18)


def _draw_lines(axes: Axes, lines: list[Sampled]) -> None:
    for line in lines:
        axes.plot(*_with_gaps(line), linewidth=1, label=line.name if not line.is_flat else None)
    axes.set_ylim(bottom=0)
    axes.yaxis.get_offset_text().set_fontsize(6)
    axes.grid(visible=True, linewidth=0.3)
    if 0 < sum(not line.is_flat for line in lines) <= MOST_NAMES:
        axes.legend(fontsize=6, loc="best", framealpha=0.6)


def _with_gaps(line: Sampled) -> tuple[list[float], list[float]]:
    moments: list[float] = []
    values: list[float] = []
    for moment, value in zip(line.moments, line.values, strict=True):
        if moments and moment - moments[-1] > GAP_SECONDS:
            moments.append(moment)
            values.append(math.nan)
        moments.append(moment)
        values.append(value)
    return moments, values


def _draw_buckets(axes: Axes, lines: list[Sampled]) -> None:
    """Prometheus' buckets hold all that is smaller too: each less the one before it."""
    buckets = sorted(lines, key=lambda line: float(line.name))
    moments = sorted({moment for line in buckets for moment in line.moments})
    table = [dict(zip(line.moments, line.values, strict=True)) for line in buckets]
    rows = [[row.get(moment, 0.0) for moment in moments] for row in table]
    below = [[0.0] * len(moments), *rows[:-1]]
    counts = [[high - low for high, low in zip(*pair, strict=True)] for pair in zip(rows, below, strict=True)]
    axes.pcolormesh(moments, range(len(buckets)), counts, cmap="Blues", shading="nearest")
    axes.set_yticks(range(len(buckets)), [f"≤ {line.name}" for line in buckets])
