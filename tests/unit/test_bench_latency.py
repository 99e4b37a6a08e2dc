"""Time to first token, the hop and the flood, from records made by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from workers.bench import latency, mixed
from workers.bench.driver_process import DriverProcess
from workers.bench.load import JobMix, Load, Range
from workers.bench.records import JobRecord, PassRecord
from workers.bench.report import Repeat, Row
from workers.bench.session import Session
from workers.bench.target import BenchError, EngineTarget


def job(index: int, submitted_at: float, first_token_at: float | None, ended_at: float) -> JobRecord:
    """A job that was answered."""
    return JobRecord(index, submitted_at, ended_at, first_token_at=first_token_at, output_tokens=10)


def test_both_times_count_from_before_the_submit() -> None:
    """In milliseconds; a job whose first token nobody saw is not in that distribution."""
    figures = latency.metrics(PassRecord([job(0, 1.0, 1.5, 2.0), job(1, 1.0, None, 4.0)], 1.0))
    assert (figures["first_token_ms_min"], figures["first_token_ms_max"]) == (500.0, 500.0)
    assert (figures["end_to_end_ms_min"], figures["end_to_end_ms_max"]) == (1000.0, 3000.0)


def test_the_hop_is_the_difference_of_the_same_percentile_repeat_by_repeat() -> None:
    """And has a spread of its own."""
    fleet = Row("fleet", [Repeat({"first_token_ms_p50": value}) for value in (5.0, 7.0)])
    direct = Row("asyncllm", [Repeat({"first_token_ms_p50": value}) for value in (1.0, 2.0)])
    found = latency.hops(fleet, direct)
    assert set(found) == {"first token p50 ms"}
    assert (found["first token p50 ms"].min, found["first token p50 ms"].max) == (4.0, 5.0)


def test_only_jobs_that_came_into_the_flood_count() -> None:
    """While more batch jobs than slots were unfinished; afterwards the interactive ones met free slots."""
    batch = [job(index, 0.0, None, float(10 + index)) for index in range(4)]
    came = [job(4 + number, at, at + 1, at + 1) for number, at in enumerate((1.0, 10.9, 11.0, 20.0))]
    assert [record.index for record in mixed.under_flood(came, batch, slots=2)] == [4, 5]
    assert mixed.under_flood(came, batch[:2], slots=2) == []


def test_the_flooded_and_the_unloaded_times_stand_side_by_side() -> None:
    """With what the batch made meanwhile, and how many jobs the figures come from."""
    alone = PassRecord([job(0, 0.0, 0.1, 0.1)], 0.0)
    flooded = PassRecord([*(job(n, 0.0, None, 10.0) for n in range(3)), job(3, 1.0, 1.3, 1.3)], 0.0)
    figures = mixed.metrics(alone, flooded, batch_jobs=3, slots=2)
    assert figures["alone_first_token_ms_p99"] == pytest.approx(100.0)
    assert figures["flooded_first_token_ms_p99"] == pytest.approx(300.0)
    assert mixed.slowdown(figures, "p50") == pytest.approx(3.0)
    assert figures["interactive_jobs_under_flood"] == 1
    assert figures["batch_tokens_per_second"] == 3.0


def test_a_flood_that_ended_too_early_is_an_error() -> None:
    """Its figures would be those of an idle fleet."""
    alone = PassRecord([job(0, 0.0, 0.1, 0.1)], 0.0)
    flooded = PassRecord([job(0, 0.0, None, 1.0), job(1, 5.0, 5.1, 5.1)], 0.0)
    with pytest.raises(BenchError, match="--batch-jobs"):
        mixed.metrics(alone, flooded, batch_jobs=1, slots=1)


def test_interactive_jobs_come_at_a_steady_rate() -> None:
    """One token each, on the most urgent lane, numbered after the flood."""
    jobs = mixed.steady(JobMix(3, Range(2, 2)), pass_number=1, rate=4.0, first_index=10)
    assert [one.at_seconds for one in jobs] == [0.25, 0.5, 0.75]
    assert [one.index for one in jobs] == [10, 11, 12]
    assert {(one.output_tokens, one.priority) for one in jobs} == {(1, "interactive")}


class Instant:
    """A driver on which every job takes a second from its time on, and the batch a minute."""

    def run(self, load: Load) -> PassRecord:
        """All of them."""
        records = [
            job(
                one.index, one.at_seconds, one.at_seconds + 1.0, one.at_seconds + (60 if one.priority == "batch" else 1)
            )
            for one in load.jobs
        ]
        return PassRecord(records, 0.0)


@dataclass(frozen=True, slots=True)
class InterruptedSession(Session):
    """Ctrl-C comes while the second driver starts."""

    @contextmanager
    def driver(self, label: str) -> Iterator[DriverProcess]:
        """The first serves."""
        if label == "celery-threads":
            raise KeyboardInterrupt
        yield cast("DriverProcess", Instant())


def test_an_interrupted_run_keeps_what_was_complete(tmp_path: Path) -> None:
    """Of the drivers that had their turn; the others' rows say that they had none."""
    target = EngineTarget("simulated", "none", "sim", {"max_num_seqs": 2})
    said: list[Any] = []
    session = InterruptedSession(target, JobMix(3, Range(2, 2)), 2, None, tmp_path, said.append)
    report = mixed.run(session, mixed.Plan(("fleet", "celery-threads"), batch_jobs=5, rate=4.0))
    assert [len(row.repeats) for row in report.rows] == [2, 0]
    assert report.rows[1].notes == ["interrupted after 0 of 2 repeats"]
    assert report.comparisons["fleet, first token p50, flooded ÷ alone"].mean == pytest.approx(1.0)
    assert len(report.comparisons) == 3
