"""``throughput``: tokens per second, the same jobs through every driver.

A figure is output tokens over the time from the first submit until the last result is in the caller's hands. The start
of engines and a warm-up pass are not in it. A driver runs all its repeats on one start, one driver after the other; in
repeat N every driver gets the same jobs, whose prompts no engine has seen before.
"""

from collections.abc import Sequence
from typing import Final

from workers.bench.drivers import KINDS, kind_of
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


def run(session: Session, drivers: Sequence[str]) -> Report:
    """Run every driver; one that fails has a row that says so.

    Raises:
        BenchError: a driver is not known, or cannot run the target; none was started.
    """
    kinds = {name: kind_of(name, session.target) for name in drivers}
    report = Report("throughput", session.target, {"drivers": list(drivers)}, COLUMNS)
    for name, kind in kinds.items():
        row = Row(name, notes=[kind.what])
        report.rows.append(row)
        try:
            measure(session, name, row)
        except BenchError as error:
            row.notes.append(f"failed: {error}")
            session.say(f"{name}: {error}")
    report.comparisons = ratios(report.rows)
    return report


def measure(session: Session, name: str, row: Row) -> None:
    """All repeats of one driver into its row.

    Raises:
        BenchError: the driver failed.
    """
    with session.driver(name) as driver:
        for number in session.passes:
            session.say(f"{name}: repeat {number} of {session.repeats}")
            done = driver.run(Load(session.mix.jobs(number), KINDS[name].jobs_out(session.target)))
            note_failures(row, done)
            row.repeats.append(Repeat(metrics(done), columns_of(done)))


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
