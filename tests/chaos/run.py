"""One run: faults on their schedule, then the end of every job, then the invariants."""

import logging
import random
import time
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.invariants import violations_of
from tests.chaos.jobs import seeded
from tests.chaos.report import Report, Struck
from tests.chaos.scenarios import Scenario
from tests.chaos.stand import Plan, Stalled, Stand

log = logging.getLogger(__name__)


def run(plan: Plan, folder: Path) -> Report:
    """Run it under ``folder``, where logs and data stay.

    Raises:
        NotHere: this machine cannot show one of the faults.
    """
    rng = seeded(plan.seed, plan.scenario.name)
    began_at = time.monotonic()
    struck: list[Struck] = []
    stalled: str | None = None
    with Stand(plan, folder) as stand:
        try:
            for fault in schedule(plan.scenario, rng):
                stand.pause(rng.uniform(*plan.scenario.gap_seconds))
                whom = FAULTS[fault](stand, rng)
                struck.append(Struck(fault, whom, round(time.monotonic() - began_at, 3)))
                log.info("%4d %-22s %s; %d jobs answered", len(struck), fault, whom, stand.observer.answered)
            stand.finish()
        except Stalled as error:
            stalled = str(error)
            log.warning("stalled: %s", error)
        stand.submitting.kill()
        stand.stop_workers()
        _wait_for_markers(stand)
        return Report(
            plan=plan,
            seconds=time.monotonic() - began_at,
            struck=struck,
            stalled=stalled,
            waits=stand.redelivery.waits(),
            exit_codes=stand.exit_codes,
            evidence=(evidence := stand.evidence()),
            violations=violations_of(evidence),
        )


def schedule(scenario: Scenario, rng: random.Random) -> list[str]:
    """The scenario's faults in the order that the generator says."""
    faults = [fault for fault, count in scenario.faults.items() for _ in range(count)]
    rng.shuffle(faults)
    return faults


def _wait_for_markers(stand: Stand) -> None:
    """Give what expires by itself (who isolates suspects) the lease that it lives."""
    deadline = time.monotonic() + stand.scenario.lease_seconds + 1.0
    while sum(stand.residue().values()) and time.monotonic() < deadline:
        stand.pause(0.1)
