"""The published runs as one Markdown table: ``python -m tests.chaos.table``; docs/reliability.md holds its output."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results")
COLUMNS: Final = (
    "run",
    "faults",
    "jobs",
    "lost",
    "answered twice",
    "redelivered",
    "next claim p50 / p99 / max, s",
    "holds",
)


def published_table(folder: Path = RESULTS) -> str:
    """One row per report in ``folder``, by name."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(report) for report in reports)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: Mapping[str, Any]) -> tuple[str, ...]:
    stated = report["jobs_lost_as_stated"], report["jobs_answered_again_as_stated"]
    return (
        f"{_name(report)}, seed {report['seed']}, {report['date']}",
        ", ".join(f"{count:,} {fault}" for fault, count in report["faults"].items()),
        f"{report['jobs_submitted']:,}",
        _count(report["jobs_lost"], stated[0])
        + (f", {left:,} stuck" if (left := report["jobs_left_in_redis"]) else ""),
        _count(report["jobs_answered_twice"], stated[1]),
        f"{report['jobs_redelivered']:,}",
        "; ".join(_wait(waits) for waits in report["redelivery_seconds"].values() if waits["jobs"]) or "-",
        "yes" if report["holds"] else "**no**",
    )


def _name(report: Mapping[str, Any]) -> str:
    if report["transport"] == "stock":
        return f"{report['scenario']}, **stock Celery**, visibility {report['stock_visibility_seconds']:,} s"
    return f"{report['scenario']}, {report['engine']}"


def _count(count: int, stated: int) -> str:
    return f"{count:,}" + (f" (and {stated:,} as stated)" if stated else "")


def _wait(waits: Mapping[str, float]) -> str:
    return f"{waits['p50']:.1f} / {waits['p99']:.1f} / {waits['max']:.1f}"


if __name__ == "__main__":
    sys.stdout.write(published_table() + "\n")
