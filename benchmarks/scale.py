"""How cost grows: with workers on one Redis, with queued jobs, with leases, with waiting callers, and of idleness.

``python -m benchmarks.scale --json scale.json``

Parts, each on a fresh server (``--parts`` chooses):

- ``workers``: jobs that wait beforehand, drained by 1, 2, 4, 8 real worker processes with the simulated engine.
- ``steady``: the same with engines that take as long as real ones: each worker ends so many jobs a second, one by one.
- ``depth``: claims and memory while 1 to 100,000 jobs wait: plain ones, of 100 tenants, of 100 shared prefixes.
- ``leases``: what keepers do while 256 to 102,400 leases are held, and when nearly all of them end at once.
- ``callers``: 1 to 10,000 callers of one ``AsyncProducer`` wait, while nothing ends and while results come slowly.
- ``idle``: what 0, 1, 2, 4 workers without jobs ask of the server.

CPU time is that of the kernel's clocks. Server figures are its main thread's, which alone runs commands. Wall-clock
figures (latencies, jobs/s) depend on who else uses the cores.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scaling import callers, depth, draining, idle, leases, steady
from benchmarks.scaling.jobs import KINDS
from workers.bench.machine import hardware, versions

Rows = list[dict[str, Any]]

PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "workers": lambda given: draining.measure(
        draining.Plan(given.workers, given.jobs_per_worker, given.output_tokens, given.repeats, given.listener)
    ),
    "steady": lambda given: steady.measure(
        steady.Plan(given.steady_workers, given.rate, given.steady_output_tokens, given.window_seconds)
    ),
    "depth": lambda given: depth.measure(given.kinds, given.depths, given.samples),
    "leases": lambda given: leases.measure(given.held, max(1, given.samples // 10)),
    "callers": lambda given: callers.measure(
        callers.Plan(given.callers, given.results_per_second, given.window_seconds)
    ),
    "idle": lambda given: idle.measure(given.idle_workers, given.window_seconds),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    given = parsed(argv)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": ["python", "-m", "benchmarks.scale", *(sys.argv[1:] if argv is None else argv)],
        "hardware": hardware(),
        "versions": versions(),
        "parts": {},
    }
    for part in given.parts:
        print(f"{part} …", file=sys.stderr, flush=True)
        report["parts"][part] = rows = PARTS[part](given)
        print(f"{part}\n{table(rows)}\n", flush=True)
        if given.json:  # after each part: the next one may take minutes
            given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, help="where to write everything")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--jobs-per-worker", type=int, default=1_500)
    parser.add_argument("--output-tokens", type=int, default=1, help="of each job of the part workers")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--listener", action="store_true", help="somebody hears all events in the part workers")
    parser.add_argument("--steady-workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rate", type=float, default=56.0, help="jobs/s of each worker of the part steady")
    parser.add_argument("--steady-output-tokens", type=int, default=272)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 100, 10_000, 100_000])
    parser.add_argument("--samples", type=int, default=500, help="claims per figure")
    parser.add_argument("--held", type=int, nargs="+", default=[256, 2_560, 25_600, 102_400])
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 100, 1_000, 10_000])
    parser.add_argument("--results-per-second", type=float, default=50.0)
    parser.add_argument("--idle-workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--window-seconds", type=float, default=10.0, help="of the parts steady, callers and idle")
    return parser.parse_args(argv)


def table(rows: Rows) -> str:
    """One line per figure, one column per row: there are more figures than rows."""
    names = list(dict.fromkeys(name for row in rows for name in row if not isinstance(row[name], dict)))
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:<{width}} " + " ".join(f"{row.get(name, ''):>10}" for row in rows) for name in names)


if __name__ == "__main__":
    sys.exit(main())
