"""``latency``: one job's time through an idle fleet beside the engine called directly, in the same run.

Two ways of asking, both with jobs of one token: *one at a time* (the next is handed in when the last is answered), and
*N/s* (independent arrivals, Poisson, whether or not earlier ones are answered).

* ``first_token_ms``: from before the call that hands the job in (``Producer.submit``, ``generate``) until the first
  token exists in the process that generates. A job of one token ends with it, so for the fleet that is Redis' time of
  enqueueing plus the result's ``queued_seconds`` and ``total_seconds``; clocks are one machine's.
* ``end_to_end_ms``: from before the same call until the result is in the caller's hands.

The hop is what the fleet adds: the difference of the same percentile of both, repeat by repeat.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from workers.bench.driver_process import DriverProcess
from workers.bench.drivers.variant import refuse_without_arrivals
from workers.bench.figures import CUTS, MILLISECONDS, Metrics, Spread, distribution, spread
from workers.bench.load import BenchJob, Load, Range, poisson_arrivals
from workers.bench.records import PassRecord
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.session import Session, columns_of, note_failures

DIRECT: Final = "asyncllm"
ONE_AT_A_TIME: Final = "one at a time"
COLUMNS: Final = tuple(
    Column(f"{name}_{cut}", f"{title} {cut} ms", 2)
    for name, title in (("first_token_ms", "first token"), ("end_to_end_ms", "end to end"))
    for cut in CUTS
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    drivers: Sequence[str]
    rate: float
    """Jobs a second of the open loop; 0 leaves it out."""

    @property
    def ways(self) -> list[str]:
        """The ways of asking."""
        return [ONE_AT_A_TIME, *([f"{self.rate:g}/s"] if self.rate else [])]


def run(session: Session, plan: Plan) -> Report:
    """Run both ways on every driver.

    Raises:
        BenchError: a driver is not known, or failed.
    """
    for name in plan.drivers:
        refuse_without_arrivals(name, session.target)
    one_token = dataclasses.replace(session, mix=dataclasses.replace(session.mix, output_tokens=Range(1, 1)))
    rows = {(name, way): Row(f"{name}, {way}") for way in plan.ways for name in plan.drivers}
    for started in _together(one_token, plan.drivers):
        for number in session.passes:
            session.say(f"{', '.join(started)}: repeat {number} of {session.repeats}")
            for way in plan.ways:
                for name, driver in started.items():
                    row = rows[name, way]
                    done = driver.run(_load(one_token, plan, way, number))
                    note_failures(row, done)
                    row.repeats.append(Repeat(metrics(done), columns_of(done)))
    comparisons = {
        f"{name} less {DIRECT}, {way}, {text}": value
        for way in plan.ways
        for name in plan.drivers
        if name != DIRECT and DIRECT in plan.drivers
        for text, value in hops(rows[name, way], rows[DIRECT, way]).items()
    }
    parameters = {"drivers": list(plan.drivers), "rate": plan.rate}
    return Report("latency", session.target, parameters, COLUMNS, list(rows.values()), comparisons)


def _together(session: Session, drivers: Sequence[str]) -> Iterator[Mapping[str, DriverProcess]]:
    """Simulated engines run side by side and take turns; real ones each have the machine to themselves."""
    groups = [drivers] if session.target.kind == "simulated" else [[name] for name in drivers]
    for group in groups:
        with ExitStack() as stack:
            yield {name: stack.enter_context(session.driver(name)) for name in group}


def _load(session: Session, plan: Plan, way: str, number: int) -> Load:
    # Each way has passes of its own: their prompts must be new to the engine too.
    pass_number = number * len(plan.ways) + plan.ways.index(way)
    jobs = session.mix.jobs(pass_number)
    return Load(jobs, window=1) if way == ONE_AT_A_TIME else Load(arriving(jobs, plan.rate, f"arrivals-{number}"))


def arriving(jobs: Sequence[BenchJob], rate: float, seed: str) -> tuple[BenchJob, ...]:
    """The jobs with independent arrival times."""
    arrivals = poisson_arrivals(len(jobs), rate, seed)
    return tuple(dataclasses.replace(job, at_seconds=at) for job, at in zip(jobs, arrivals, strict=True))


def metrics(done: PassRecord) -> Metrics:
    """The figures of one pass."""
    first = [record.first_token_seconds for record in done.answered]
    end_to_end = [record.end_to_end_seconds * MILLISECONDS for record in done.answered]
    told = [seconds * MILLISECONDS for seconds in first if seconds is not None]
    return distribution("first_token_ms", told) | distribution("end_to_end_ms", end_to_end)


def hops(fleet: Row, direct: Row) -> dict[str, Spread]:
    """Percentile by percentile, what ``fleet`` took longer than ``direct``, over the repeats; in milliseconds."""
    found = {}
    for name, title in (("first_token_ms", "first token"), ("end_to_end_ms", "end to end")):
        for cut in CUTS:
            pairs = zip(fleet.repeats, direct.repeats, strict=True)
            metric = f"{name}_{cut}"
            values = [
                f.metrics[metric] - d.metrics[metric] for f, d in pairs if metric in f.metrics and metric in d.metrics
            ]
            if values:
                found[f"{title} {cut} ms"] = spread(values)
    return found
