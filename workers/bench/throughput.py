"""``throughput``: tokens per second, the same jobs through every driver.

A figure is output tokens over the time from the first submit until the last result is in the caller's hands. The start
of engines and a warm-up pass are not in it. Each driver is started once. In repeat N every driver gets the same jobs,
whose prompts no engine has seen before. One driver after the other has the machine to itself with all its repeats; or,
together, all of them are started and take turns, which is fairer on a machine whose speed drifts, quicker where engines
start slowly, and needs memory for all engines at once. Ctrl-C ends the run and keeps the repeats that were complete.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from workers.bench.driver_process import DriverProcess
from workers.bench.drivers.variant import variant_of
from workers.bench.figures import MILLISECONDS, Metrics, Spread, distribution, spread
from workers.bench.load import Load
from workers.bench.records import PassRecord
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.session import Session, columns_of, note_failures
from workers.bench.target import BenchError

BASELINE: Final = "asyncllm"
COLUMNS: Final = (
    Column("tokens_per_second", "tokens/s", 0),
    Column("jobs_per_second", "jobs/s"),
    Column("end_to_end_ms_p50", "p50 ms", 0),
    Column("end_to_end_ms_p99", "p99 ms", 0),
    Column("producer_cpu_ms_per_job", "producer cpu-ms", 2),
    Column("worker_cpu_ms_per_job", "worker cpu-ms", 2),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    drivers: Sequence[str]
    together: bool = False
    """All drivers are started before the first pass, and take turns in each repeat."""


def run(session: Session, plan: Plan) -> Report:
    """Run every driver; one that fails has a row that says so.

    Raises:
        BenchError: a driver is not known, or cannot run the target; none was started.
    """
    rows = {label: Row(label, notes=[variant_of(label, session.target).kind.what]) for label in plan.drivers}
    try:
        for group in [rows] if plan.together else [{label: row} for label, row in rows.items()]:
            with ExitStack() as stack:
                _take_turns(session, group, _serving(session, group, stack))
    except KeyboardInterrupt:
        for row in rows.values():
            row.notes.append(f"interrupted after {len(row.repeats)} of {session.repeats} repeats")
    report = Report("throughput", session.target, dataclasses.asdict(plan), COLUMNS, list(rows.values()))
    report.comparisons = ratios(report.rows)
    return report


def _serving(session: Session, rows: Mapping[str, Row], stack: ExitStack) -> dict[str, DriverProcess]:
    """The drivers that serve and are warm; a row whose driver does not says why."""
    drivers: dict[str, DriverProcess] = {}
    for label, row in rows.items():
        drivers[label] = stack.enter_context(session.process(label))
        if len(drivers) == 1:  # the others find what it has compiled
            with _noting_failure(session, row):
                drivers[label].wait_until_ready()
    serving = {}
    for label, driver in drivers.items():
        with _noting_failure(session, rows[label]):
            driver.wait_until_ready()
            session.warm_up(label, driver)
            serving[label] = driver
    return serving


def _take_turns(session: Session, rows: Mapping[str, Row], drivers: dict[str, DriverProcess]) -> None:
    for number in session.passes:
        for label, driver in list(drivers.items()):
            session.say(f"{label}: repeat {number} of {session.repeats}")
            del drivers[label]  # unless it serves the pass
            with _noting_failure(session, rows[label]):
                window = variant_of(label, session.target).window
                done = driver.run(Load(session.mix.jobs(number), window))
                note_failures(rows[label], done)
                rows[label].repeats.append(Repeat(metrics(done), columns_of(done)))
                drivers[label] = driver


@contextmanager
def _noting_failure(session: Session, row: Row) -> Iterator[None]:
    try:
        yield
    except BenchError as error:
        if (note := f"failed: {error}") not in row.notes:
            row.notes.append(note)
        session.say(f"{row.name}: {error}")


def metrics(done: PassRecord) -> Metrics:
    """The figures of one pass.

    Raises:
        BenchError: no job was answered.
    """
    answered, seconds = done.answered, done.wall_seconds
    if not answered:
        raise BenchError(f"not one of {len(done.records)} jobs was answered: {done.records[0].failure}")
    output_tokens = sum(record.output_tokens for record in answered)
    return {
        "tokens_per_second": output_tokens / seconds,
        "jobs_per_second": len(answered) / seconds,
        "wall_seconds": seconds,
        "jobs": len(answered),
        "failed_jobs": len(done.records) - len(answered),
        "output_tokens": output_tokens,
        "prompt_tokens": sum(record.prompt_tokens for record in answered),
        "hand_in_seconds": done.handed_in_at - min(record.submitted_at for record in done.records),
        **distribution("end_to_end_ms", [record.end_to_end_seconds * MILLISECONDS for record in answered]),
        **cpu_per_job(done),
    }


def cpu_per_job(done: PassRecord) -> Metrics:
    """CPU milliseconds per answered job of each of the driver's parts."""
    jobs = len(done.answered) or 1
    return {f"{part}_cpu_ms_per_job": s * MILLISECONDS / jobs for part, s in done.cpu_seconds.items()}


def ratios(rows: Sequence[Row]) -> dict[str, Spread]:
    """Tokens per second of each row over the baseline's, repeat by repeat: the same jobs on both sides."""
    base = next((row for row in rows if row.name == BASELINE and row.repeats), None)
    if base is None:
        return {}
    found = {}
    for row in rows:
        if row is not base and row.repeats:
            pairs = zip(row.repeats, base.repeats, strict=False)
            shares = [r.metrics["tokens_per_second"] / b.metrics["tokens_per_second"] for r, b in pairs]
            found[f"{row.name} ÷ {BASELINE}"] = spread(shares)
    return found
