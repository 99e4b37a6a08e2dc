"""The jobs of a pass: repeatable, fresh in every pass, and due when they should be."""

import dataclasses

import pytest

from workers.bench.load import BenchJob, JobMix, Load, Range, due, poisson_arrivals

MIX = JobMix(40, Range(5, 9), Range(2, 4))


def test_the_same_seed_and_pass_give_the_same_jobs() -> None:
    """Every driver of a run gets them."""
    assert MIX.jobs(3) == MIX.jobs(3)
    assert MIX.jobs(3) != dataclasses.replace(MIX, seed=8).jobs(3)


def test_no_prompt_of_a_pass_was_in_another() -> None:
    """Otherwise prefix caching would flatter the later one."""
    prompts = [{job.prompt for job in MIX.jobs(number)} for number in range(4)]
    assert not any(prompts[a] & prompts[b] for a in range(4) for b in range(a))


def test_lengths_lie_in_their_ranges() -> None:
    """Both ends are included."""
    jobs = MIX.jobs(1, 400)
    assert {len(job.prompt.split()) for job in jobs} == set(range(5, 10))
    assert {job.output_tokens for job in jobs} == {2, 3, 4}
    assert [job.index for job in jobs] == list(range(400))


@pytest.mark.parametrize(("text", "expected"), [("50:300", Range(50, 300)), ("7", Range(7, 7))])
def test_a_range_is_written_with_a_colon(text: str, expected: Range) -> None:
    """One number is a range too."""
    assert Range.parsed(text) == expected


@pytest.mark.parametrize("text", ["", "a:b", "9:3", "0:3", "1:2:3", "-1"])
def test_what_is_no_range_is_refused_by_what_was_written(text: str) -> None:
    """The message quotes it."""
    with pytest.raises(ValueError, match=repr(text)):
        Range.parsed(text)


def test_arrivals_come_in_order_at_the_wanted_rate() -> None:
    """Ten a second on average, repeatable."""
    arrivals = poisson_arrivals(2_000, 10.0, "seed")
    assert arrivals == sorted(arrivals)
    assert arrivals == poisson_arrivals(2_000, 10.0, "seed")
    assert arrivals[-1] == pytest.approx(200.0, rel=0.1)


def test_later_jobs_are_due_in_order_of_arrival() -> None:
    """Whatever their place in the pass."""
    jobs = [BenchJob(0, "a", 1, at_seconds=2.0), BenchJob(1, "b", 1), BenchJob(2, "c", 1, at_seconds=1.0)]
    at_once, later = due(jobs)
    assert [job.index for job in at_once] == [1]
    assert [job.index for job in later] == [2, 0]


def test_a_load_survives_its_way_to_the_driver() -> None:
    """As JSON."""
    load = Load(MIX.jobs(1), window=5)
    assert Load.parsed(dataclasses.asdict(load)) == load
