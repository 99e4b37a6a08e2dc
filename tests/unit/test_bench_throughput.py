"""Tokens per second and ratios, from records made by hand."""

import pytest

from workers.bench.records import JobRecord, PassRecord
from workers.bench.report import Repeat, Row
from workers.bench.target import BenchError
from workers.bench.throughput import metrics, ratios


def answered(index: int, submitted_at: float, ended_at: float, output_tokens: int) -> JobRecord:
    """A job that went well."""
    return JobRecord(index, submitted_at, ended_at, output_tokens=output_tokens, prompt_tokens=3)


def test_tokens_per_second_count_from_the_first_submit_to_the_last_result() -> None:
    """Not from when everything was handed in."""
    done = PassRecord([answered(0, 10.0, 12.0, 30), answered(1, 11.0, 14.0, 10)], 11.0, {"worker": 0.5})
    figures = metrics(done)
    assert figures["tokens_per_second"] == 10.0
    assert figures["jobs_per_second"] == 0.5
    assert figures["hand_in_seconds"] == 1.0
    assert figures["worker_cpu_ms_per_job"] == 250.0
    assert (figures["end_to_end_ms_min"], figures["end_to_end_ms_max"]) == (2000.0, 3000.0)


def test_a_failed_job_adds_no_tokens_but_its_time_counts() -> None:
    """A driver must not look fast because it fails fast, nor because it fails late."""
    failed = JobRecord(1, 10.0, 20.0, failure="no room")
    figures = metrics(PassRecord([answered(0, 10.0, 12.0, 30), failed], 10.0))
    assert figures["tokens_per_second"] == 3.0
    assert (figures["jobs"], figures["failed_jobs"]) == (1, 1)


def test_a_pass_without_any_answer_is_an_error_that_says_why() -> None:
    """There is no figure to report."""
    with pytest.raises(BenchError, match="no room"):
        metrics(PassRecord([JobRecord(0, 1.0, 2.0, failure="no room")], 1.0))


def test_ratios_pair_the_repeats_that_had_the_same_jobs() -> None:
    """Each row over the bare engine, repeat by repeat; a row that failed has none."""
    base = Row("asyncllm", [Repeat({"tokens_per_second": value}) for value in (10.0, 20.0)])
    fleet = Row("fleet", [Repeat({"tokens_per_second": value}) for value in (9.0, 22.0)])
    found = ratios([fleet, base, Row("static-batch")])
    assert set(found) == {"fleet ÷ asyncllm"}
    assert (found["fleet ÷ asyncllm"].min, found["fleet ÷ asyncllm"].max) == (0.9, 1.1)
    assert ratios([fleet]) == {}
