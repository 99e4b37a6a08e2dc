"""``mixed``: how long interactive jobs wait for their first token while thousands of batch jobs are queued.

Each repeat runs the interactive jobs twice at the same steady rate: alone, and after ``--batch-jobs`` jobs of the lane
``batch`` were handed in. Interactive jobs have one token, so a job's end in the worker is its first token
(:mod:`workers.bench.latency` has the definition). Of the flooded pass only those interactive jobs count that came while
more batch jobs than the engine has slots were not finished; how many those are is in the report.

Each driver uses the priorities that it has: the fleet's lanes, Celery's priority lists; AsyncLLM gets everything at
once, and orders it by its own ``scheduling_policy`` (an engine option for all drivers; first come, first served).
Ctrl-C ends the run and keeps the repeats that were complete.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workers.bench.driver_process import DriverProcess
from workers.bench.drivers.variant import refuse_without_arrivals
from workers.bench.figures import CUTS, MILLISECONDS, Metrics, distribution, spread
from workers.bench.load import BenchJob, JobMix, Load, Range
from workers.bench.records import JobRecord, PassRecord
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.session import Session, columns_of, note_failures
from workers.bench.target import BenchError

COLUMNS: Final = (
    Column("flooded_first_token_ms_p50", "first token flooded p50 ms", 1),
    Column("flooded_first_token_ms_p99", "p99 ms", 1),
    Column("alone_first_token_ms_p50", "alone p50 ms", 1),
    Column("alone_first_token_ms_p99", "p99 ms", 1),
    Column("interactive_jobs_under_flood", "counted", 0),
    Column("batch_tokens_per_second", "batch tokens/s", 0),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    drivers: Sequence[str]
    batch_jobs: int
    rate: float
    """Interactive jobs a second."""


def run(session: Session, plan: Plan) -> Report:
    """Run every driver; the session's mix are the interactive jobs' prompts, and the batch jobs.

    Raises:
        BenchError: a driver is not known, or failed.
    """
    for name in plan.drivers:
        refuse_without_arrivals(name, session.target)
    rows = [Row(name) for name in plan.drivers]
    try:
        for row in rows:
            with session.driver(row.name) as driver:
                for number in session.passes:
                    session.say(f"{row.name}: repeat {number} of {session.repeats}")
                    row.repeats.append(_repeat(session, driver, plan, number, row))
    except KeyboardInterrupt:
        for row in rows:
            row.notes.append(f"interrupted after {len(row.repeats)} of {session.repeats} repeats")
    report = Report("mixed", session.target, dataclasses.asdict(plan), COLUMNS, rows)
    report.comparisons = {
        f"{row.name}, first token {cut}, flooded ÷ alone": spread([slowdown(r.metrics, cut) for r in row.repeats])
        for row in rows
        if row.repeats
        for cut in CUTS
    }
    return report


def slowdown(found: Metrics, cut: str) -> float:
    """How many times longer this percentile is under the flood."""
    return found[f"flooded_first_token_ms_{cut}"] / found[f"alone_first_token_ms_{cut}"]


def _repeat(session: Session, driver: DriverProcess, plan: Plan, number: int, row: Row) -> Repeat:
    # Two loads to a repeat, so two pass numbers: no prompt comes twice.
    interactive = steady(session.mix, number * 2, plan.rate)
    alone = driver.run(Load(interactive))
    flood = [dataclasses.replace(job, priority="batch") for job in session.mix.jobs(-number, plan.batch_jobs)]
    later = steady(session.mix, number * 2 + 1, plan.rate, first_index=len(flood))
    flooded = driver.run(Load((*flood, *later)))
    for done in (alone, flooded):
        note_failures(row, done)
    raw = {f"{name}_{column}": values for name, done in (("alone", alone), ("flooded", flooded))
           for column, values in columns_of(done).items()}  # fmt: skip
    return Repeat(metrics(alone, flooded, batch_jobs=len(flood), slots=session.target.slots), raw)


def steady(mix: JobMix, pass_number: int, rate: float, first_index: int = 0) -> tuple[BenchJob, ...]:
    """Interactive jobs of one token, one every ``1 / rate`` seconds."""
    one_token = dataclasses.replace(mix, output_tokens=Range(1, 1))
    return tuple(
        dataclasses.replace(
            job, index=first_index + job.index, priority="interactive", at_seconds=(job.index + 1) / rate
        )
        for job in one_token.jobs(pass_number)
    )


def metrics(alone: PassRecord, flooded: PassRecord, *, batch_jobs: int, slots: int) -> Metrics:
    """The figures of one repeat; ``batch_jobs`` is how many of the flooded pass, the first by index, are the flood.

    Raises:
        BenchError: the flood was over before an interactive job came.
    """
    batch = [record for record in flooded.answered if record.index < batch_jobs]
    interactive = [record for record in flooded.answered if record.index >= batch_jobs]
    counted = under_flood(interactive, batch, slots)
    if not counted:
        raise BenchError("the flood was over before an interactive job came: raise --batch-jobs or --output-tokens")
    began_at = min(record.submitted_at for record in batch)
    seconds = max(record.ended_at for record in batch) - began_at
    return {
        **first_token_ms("alone", alone.answered),
        **first_token_ms("flooded", counted),
        "interactive_jobs_under_flood": len(counted),
        "batch_tokens_per_second": sum(record.output_tokens for record in batch) / seconds,
    }


def under_flood(interactive: Sequence[JobRecord], batch: Sequence[JobRecord], slots: int) -> list[JobRecord]:
    """The interactive jobs that came while more batch jobs than ``slots`` were not finished."""
    if len(batch) <= slots:
        return []
    # From this moment on no more than ``slots`` are left: none of them waits for another any more.
    over_at = sorted(record.ended_at for record in batch)[-slots - 1]
    return [record for record in interactive if record.submitted_at < over_at]


def first_token_ms(name: str, records: Sequence[JobRecord]) -> Metrics:
    """The distribution of times to first token."""
    told = [seconds for record in records if (seconds := record.first_token_seconds) is not None]
    return distribution(f"{name}_first_token_ms", [seconds * MILLISECONDS for seconds in told])
