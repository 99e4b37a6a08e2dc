"""A prompt goes in through Redis and its answer comes back: the journey of one request, and of many."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from producer import AsyncProducer, GenerationRequest, InferenceFailed, Producer, SamplingOptions
from producer.jobs import JobState
from tests.running import RunningFleet
from tests.waiting import eventually


def test_a_prompt_comes_back_answered_with_its_bookkeeping(fleet: RunningFleet, producer: Producer) -> None:
    """Everything that the contract promises of a result is there."""
    job = producer.submit(
        model=fleet.served,
        prompt="Once upon a time there was a queue",
        sampling={"max_tokens": 12, "temperature": 0.0, "ignore_eos": True},
        metadata={"page": "7"},
    )
    result = producer.result(job, timeout_seconds=60)
    assert (result.id, result.model, result.metadata) == (job.job_id, fleet.served, {"page": "7"})
    assert (result.usage.completion_tokens, result.choices[0].finish_reason) == (12, "length")
    assert result.usage.prompt_tokens > 0
    assert result.text
    assert result.timings.queued_seconds is not None
    assert result.timings.first_token_seconds is not None
    assert result.timings.total_seconds >= result.timings.first_token_seconds
    assert result.worker.startswith(fleet.served.replace("_", "-"))
    assert producer.status(job).state is JobState.SUCCEEDED


def test_messages_are_rendered_where_the_model_is(fleet: RunningFleet, producer: Producer) -> None:
    """The caller sends turns, the worker applies the chat template."""
    job = producer.submit(
        model=fleet.served,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        sampling={"preset": "deterministic", "max_tokens": 8},
    )
    assert producer.result(job, timeout_seconds=60).usage.prompt_tokens > 2


def test_a_thousand_jobs_are_mapped_in_order_each_with_its_own_parameters(
    fleet: RunningFleet, producer: Producer
) -> None:
    """No batch ever shares the first job's sampling parameters: every length asked is the length given."""
    count = 200

    def requests() -> Iterator[GenerationRequest]:
        for number in range(count):
            sampling = SamplingOptions(max_tokens=1 + number % 17, temperature=0.0, ignore_eos=True)
            yield GenerationRequest(model=fleet.served, prompt=f"Page {number} says", sampling=sampling)

    outcomes = list(producer.map(requests(), window=64))
    assert [outcome.index for outcome in outcomes] == list(range(count))
    lengths = [outcome.unwrap().usage.completion_tokens for outcome in outcomes]
    assert lengths == [1 + number % 17 for number in range(count)]


async def test_a_web_app_awaits_many_results_at_once(fleet: RunningFleet) -> None:
    """AsyncProducer, as a request handler would use it."""
    # Connections that begin at once, in a process that a busy machine may let stand still for some seconds.
    async with AsyncProducer(fleet.redis_url, connect_timeout_seconds=60) as producer:

        async def handler(number: int) -> int:
            job = await producer.submit(
                model=fleet.served, prompt=f"visitor {number}", sampling={"max_tokens": 4, "ignore_eos": True}
            )
            return (await producer.result(job, timeout_seconds=60)).usage.completion_tokens

        assert await asyncio.gather(*map(handler, range(40))) == [4] * 40


def test_choices_are_drawn_separately(fleet: RunningFleet, producer: Producer) -> None:
    """``n`` texts of one job, each counted."""
    job = producer.submit(
        model=fleet.served, prompt="Pick", sampling={"n": 3, "max_tokens": 5, "seed": 3, "ignore_eos": True}
    )
    result = producer.result(job, timeout_seconds=60)
    assert [choice.token_count for choice in result.choices] == [5, 5, 5]
    assert result.usage.completion_tokens == 15


def test_status_says_running_while_the_engine_has_the_job(simulated_fleet: RunningFleet) -> None:
    """Between queued and its end a job is running, on a worker that is named."""
    with simulated_fleet.producer() as producer:
        job = producer.submit(
            model=simulated_fleet.served,
            prompt="long",
            sampling={"max_tokens": 500, "ignore_eos": True},
            metadata={"simulate": "slow:1"},
        )
        eventually(lambda: producer.status(job).state is JobState.RUNNING, what="state running")
        assert producer.status(job).worker is not None
        producer.result(job, timeout_seconds=60)


def test_a_job_for_another_model_on_this_queue_is_answered_model_not_found(simulated_fleet: RunningFleet) -> None:
    """A Celery sender that mixed up queue and model gets told both."""
    with simulated_fleet.celery() as app:
        sent = app.send_task("fleet.generate", args=[{"model": "other", "prompt": "x"}], queue="fleet.sim")
        with pytest.raises(InferenceFailed, match="other") as failed:
            sent.get(timeout=30)
    assert failed.value.code == "model_not_found"


def test_urgent_jobs_overtake_the_backlog(simulated_fleet: RunningFleet) -> None:
    """The lanes: what is interactive is taken before what is batch, whoever came first."""
    with simulated_fleet.producer() as producer:
        model = simulated_fleet.served
        sampling = {"max_tokens": 400, "ignore_eos": True}  # so long that the worker cannot keep up with the submitting
        backlog = [
            producer.submit(model=model, prompt=f"b{n}", sampling=sampling, priority="batch") for n in range(400)
        ]
        urgent = producer.submit(model=model, prompt="now", sampling=sampling, priority="interactive")
        producer.result(urgent, timeout_seconds=60)
        waiting = sum(producer.status(job).state is JobState.QUEUED for job in itertools.islice(backlog, 200, None))
        assert waiting > 0
        for job in backlog:
            producer.result(job, timeout_seconds=60)
