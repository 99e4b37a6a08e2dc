"""A bench's report: rows of repeats, as JSON with every raw value, and as a table."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from workers.bench.figures import Metrics, Spread, spreads
from workers.bench.machine import hardware, versions
from workers.bench.target import EngineTarget

SCHEMA_VERSION: Final = 1


@dataclass(slots=True)
class Repeat:
    """One counted pass of a row."""

    metrics: Metrics
    raw: dict[str, Sequence[Any]] = field(default_factory=dict)
    """The values that the figures come from, one per job."""


@dataclass(slots=True)
class Row:
    """One driver, or one variant of it."""

    name: str
    repeats: list[Repeat] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Spread]:
        """Every figure's spread over the repeats."""
        return spreads([repeat.metrics for repeat in self.repeats])


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that the table shows."""

    metric: str
    title: str
    digits: int = 1


@dataclass(slots=True)
class Report:
    """What one command found."""

    bench: str
    target: EngineTarget
    parameters: dict[str, Any]
    """What the command was asked for, defaults included."""
    columns: Sequence[Column]
    """The first is what the plot shows."""
    rows: list[Row] = field(default_factory=list)
    comparisons: dict[str, Spread] = field(default_factory=dict)
    """Figures of one row over, or less, those of another in the same run, repeat by repeat, by what they say."""

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bench": self.bench,
            "command": ["fleet", *sys.argv[1:]],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": hardware(),
            "versions": versions(),
            "target": dataclasses.asdict(self.target),
            "parameters": self.parameters,
            "rows": [_row(row) for row in self.rows],
            "comparisons": {name: dataclasses.asdict(value) for name, value in self.comparisons.items()},
        }

    def save(self, path: Path) -> None:
        """Write the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json()) + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        """Print the table, the ratios and the notes."""
        served = f"{self.target.served}, {self.target.slots} slots"
        table = Table(title=f"fleet bench {self.bench}: {served}; mean ± standard deviation")
        table.add_column("")
        for column in self.columns:
            table.add_column(column.title, justify="right")
        for row in self.rows:
            table.add_row(row.name, *(_cell(row, column) for column in self.columns))
        console.print(table)
        for name, value in self.comparisons.items():
            console.print(f"{name}: {value.mean:.3f} ({value.min:.3f} to {value.max:.3f})", highlight=False)
        for row in self.rows:
            for note in row.notes:
                console.print(f"{row.name}: {note}", highlight=False, markup=False)


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "summary": {name: dataclasses.asdict(value) for name, value in row.summary.items()},
        "repeats": [dataclasses.asdict(repeat) for repeat in row.repeats],
        "notes": row.notes,
    }


def _cell(row: Row, column: Column) -> str:
    value = row.summary.get(column.metric)
    return "–" if value is None else _shown(value, column.digits)  # noqa: RUF001 - a dash where there is no figure


def _shown(value: Spread, digits: int) -> str:
    mean = f"{value.mean:,.{digits}f}"
    return f"{mean} ±{value.stdev:,.{digits}f}" if value.stdev else mean
