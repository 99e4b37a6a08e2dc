"""``python -m tests.chaos``: run scenarios, write their reports, exit with 0 when every invariant held."""

import argparse
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.report import Report
from tests.chaos.run import run
from tests.chaos.scenarios import SCENARIOS, Scenario, with_kills
from tests.chaos.stand import Plan
from tests.chaos.stock import DEFAULT_VISIBILITY_SECONDS
from tests.chaos.surroundings import NotHere

log = logging.getLogger("tests.chaos")


def main() -> int:
    """Run what the command line names; without a name, every scenario at its own size."""
    given = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    scenarios = [_changed(SCENARIOS[name], given) for name in given.scenario or SCENARIOS]
    reports = []
    for scenario in scenarios:
        plan = Plan(scenario, given.seed, given.transport, given.stock_visibility_seconds)
        report = _run(plan, given.logs)
        if report is not None:
            reports.append(report)
            sys.stdout.write(report.markdown() + "\n")
            log.info("written: %s", ", ".join(map(str, report.write(given.output))))
    return 0 if all(report.holds for report in reports) else 1


def _run(plan: Plan, logs: Path | None) -> Report | None:
    log.info("scenario %s, seed %d", plan.scenario.name, plan.seed)
    try:
        if logs is not None:
            folder = logs / plan.scenario.name
            folder.mkdir(parents=True)
            return run(plan, folder)
        with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
            return run(plan, Path(scratch))
    except NotHere as error:
        log.warning("skipped %s: %s", plan.scenario.name, error)
        return None


def _changed(scenario: Scenario, given: argparse.Namespace) -> Scenario:
    """The scenario with what the command line says otherwise."""
    if given.kills is not None:
        scenario = with_kills(scenario, given.kills)
    named = {"engine": given.engine, "workers": given.workers, "survivors": given.survivors}
    changed = replace(scenario, **{name: value for name, value in named.items() if value is not None})
    if given.gap_seconds is not None:
        changed = replace(changed, gap_seconds=tuple(given.gap_seconds))
    return changed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be repeated; default: all")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, help="how often the scenario's first fault comes")
    parser.add_argument("--engine", choices=("simulated", "vllm"))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--survivors", type=int, help="a worker is struck only while so many others hold jobs")
    parser.add_argument("--gap-seconds", type=float, nargs=2, metavar=("LEAST", "MOST"), help="between two faults")
    parser.add_argument("--transport", choices=("fleet", "stock"), default="fleet", help="stock: stock Celery instead")
    parser.add_argument("--stock-visibility-seconds", type=int, default=DEFAULT_VISIBILITY_SECONDS)
    parser.add_argument("--output", type=Path, default=Path(".fleet/chaos"), help="folder for the reports")
    parser.add_argument("--logs", type=Path, help="keep what the processes wrote in this folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
