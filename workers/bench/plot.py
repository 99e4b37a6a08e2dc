"""A report as a picture: a panel per column of its table, a bar per row, with the range of its repeats."""

from pathlib import Path
from typing import Final

from workers.bench.report import Report
from workers.bench.target import BenchError

MISSING: Final = "--plot needs matplotlib: pip install 'inference-fleet[bench]'"
PANEL_INCHES: Final = 3.2
ROW_INCHES: Final = 0.45
HEAD_INCHES: Final = 1.2


def check_plot(path: Path) -> None:
    """Before anything is measured.

    Raises:
        BenchError: it could not be drawn afterwards.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise BenchError(MISSING) from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise BenchError(f"--plot {path}: end it in one of {', '.join(sorted(known))}")


def draw(report: Report, path: Path) -> None:
    """Write the picture; the file's ending says in which format."""
    from matplotlib.figure import Figure

    rows = [(row.name, summary) for row in report.rows if (summary := row.summary)]
    columns = [column for column in report.columns if any(column.metric in summary for _, summary in rows)]
    size = (PANEL_INCHES * len(columns) + 1.5, ROW_INCHES * len(rows) + HEAD_INCHES)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"fleet bench {report.bench}: {report.target.served}, {report.target.slots} slots")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        shown = [(name, summary[column.metric]) for name, summary in rows if column.metric in summary]
        means = [value.mean for _, value in shown]
        panel.barh(
            [name for name, _ in shown],
            means,
            xerr=[[v.mean - v.min for _, v in shown], [v.max - v.mean for _, v in shown]],
            capsize=3,
        )
        panel.set_xlabel(column.title)
    panels[0].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
