"""``overhead``: what the way costs when the engine costs nothing: CPU per job, jobs per second, empty slots.

On the simulated engine. Every pass begins with all jobs queued: the worker is frozen (SIGSTOP) until they are, so
nothing that the producer does falls into the measured time.

* *no-op jobs*: one token, no time per token. Jobs per second from thawing to the last job's end by the worker's clock.
* *N jobs/s*: 256 slots, and jobs that take uniform ±50 % around the mean that makes N a second fill them. Occupancy is
  slot time in use over slot time there was, a refill gap how long a freed slot stayed empty, both by the engine's own
  record of its slots, from when 256 jobs have ended until the last waiting job got a slot.

CPU milliseconds are user and system time of each process per job. ``worker`` is the worker process without its engine's
own process, but with the simulated engine's part that writes the text, which no-op jobs keep at one word; ``server`` is
all that Redis did for the job: enqueue, claim, lease, result, and handing the result over.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.bench.driver_process import DriverProcess
from workers.bench.drivers.variant import variant_of
from workers.bench.figures import MILLISECONDS, Metrics, distribution
from workers.bench.load import Load, Range
from workers.bench.occupancy import SlotSpan, occupancy, read_spans, refill_gaps_seconds, steady_window
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.session import Session, columns_of, note_failures
from workers.bench.target import BenchError
from workers.bench.throughput import cpu_per_job

SLOTS: Final = 256
MEAN_TOKENS: Final = 20
ONE_TOKEN: Final = Range(1, 1)
AROUND_THE_MEAN: Final = Range(MEAN_TOKENS // 2, MEAN_TOKENS * 3 // 2)
PATIENCE: Final = {"engine.hang_timeout_seconds": 120}
"""A worker that is frozen for a while is not to think that its engine hangs."""
NO_RESERVE: Final = {"worker.interactive_reserve": 0}
"""The fleet's engine gets the slots that are counted, and none on top."""
COLUMNS: Final = (
    Column("worker_cpu_ms_per_job", "worker cpu-ms/job", 3),
    Column("server_cpu_ms_per_job", "server cpu-ms/job", 3),
    Column("jobs_per_second", "jobs/s", 0),
    Column("occupancy_percent", "occupancy %", 2),
    Column("refill_ms_p50", "refill p50 ms", 2),
    Column("refill_ms_p99", "refill p99 ms", 2),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    drivers: Sequence[str]
    rates: Sequence[int]
    """Jobs a second that the slots are filled by."""
    seconds: float
    """Length of a pass at such a rate."""


def rates_of(text: str) -> list[int]:
    """Rates as the command line has them, with commas; none for an empty text.

    Raises:
        ValueError: one is no whole number above 0.
    """
    rates = [int(part) if part.strip().isdigit() else 0 for part in text.split(",") if text]
    if not all(rates):
        raise ValueError(f"--rates {text}: whole numbers above 0 with commas, e.g. 100,640")
    return rates


def run(session: Session, plan: Plan) -> Report:
    """Run every part on every driver.

    Raises:
        BenchError: the target is not the simulated engine, or a driver failed.
    """
    if session.target.kind != "simulated":
        raise BenchError("overhead measures what is not the engine: add --engine simulated")
    for name in plan.drivers:
        if not variant_of(name, session.target).kind.backlog:
            raise BenchError(f"driver {name} cannot start from a full queue: fleet and celery-threads can")
    report = Report("overhead", session.target, dataclasses.asdict(plan), COLUMNS)
    for name in plan.drivers:
        report.rows.append(_no_op(session, name))
        report.rows += [_at_a_rate(session, name, rate, plan.seconds) for rate in plan.rates]
    return report


def _no_op(session: Session, name: str) -> Row:
    row = Row(f"{name}, no-op jobs")
    quick = _variant(session, {"seconds_per_token": 0}, ONE_TOKEN)
    with quick.driver(name) as driver:
        for number in quick.passes:
            session.say(f"{row.name}: repeat {number} of {session.repeats}")
            done = driver.run(Load(quick.mix.jobs(number), backlog_first=True))
            note_failures(row, done)
            seconds = max(record.ended_at for record in done.records) - done.handed_in_at
            row.repeats.append(
                Repeat({"jobs_per_second": len(done.answered) / seconds} | cpu_per_job(done), columns_of(done))
            )
    return row


def _at_a_rate(session: Session, name: str, rate: int, seconds: float) -> Row:
    row = Row(f"{name}, {rate} jobs/s")
    log = session.folder / f"slots-{name}-{rate}"
    pace_seconds = SLOTS / rate / MEAN_TOKENS
    options = {"max_num_seqs": SLOTS, "seconds_per_token": pace_seconds, "slot_log": str(log)}
    filling = _variant(session, options, AROUND_THE_MEAN)
    with filling.driver(name) as driver:
        for number in filling.passes:
            session.say(f"{row.name}: repeat {number} of {session.repeats}")
            load = Load(filling.mix.jobs(number, 2 * SLOTS + round(rate * seconds)), backlog_first=True)
            row.repeats.append(_filled(driver, load, log, row))
    return row


def _variant(session: Session, options: dict[str, Any], output_tokens: Range) -> Session:
    settings = PATIENCE | NO_RESERVE | session.target.settings
    target = dataclasses.replace(session.target, options=session.target.options | options, settings=settings)
    mix = dataclasses.replace(session.mix, output_tokens=output_tokens)
    return dataclasses.replace(session, target=target, mix=mix)


def _filled(driver: DriverProcess, load: Load, log: Path, row: Row) -> Repeat:
    offset_bytes = log.stat().st_size if log.exists() else 0
    done = driver.run(load)
    note_failures(row, done)
    spans = read_spans(log, offset_bytes)
    raw = columns_of(done) | {"slot_spans": [(span.given_at, span.left_at) for span in spans]}
    return Repeat(slot_metrics(spans, SLOTS) | cpu_per_job(done), raw)


def slot_metrics(spans: Sequence[SlotSpan], slots: int) -> Metrics:
    """Occupancy, refill gaps and jobs per second in the steady window."""
    window = steady_window(spans, slots)
    ended = sum(window.began_at <= span.left_at <= window.ended_at for span in spans)
    return {
        "occupancy_percent": occupancy(spans, slots, window) * 100,
        "jobs_per_second": ended / window.seconds,
        **distribution("refill_ms", [gap * MILLISECONDS for gap in refill_gaps_seconds(spans, slots, window)]),
    }
