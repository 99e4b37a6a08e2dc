"""Answers that are read while they are generated, through real fleets whose workers die in the middle."""

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from producer import (
    AsyncProducer,
    InferenceFailed,
    Producer,
    ResultNotReady,
    StreamDelta,
    StreamEnded,
    StreamEvent,
    StreamRestarted,
    UnknownModel,
    keys,
)
from producer.cli import build_app
from producer.stream_entries import FIELD, MOST_ENTRIES, RESTARTED
from tests.running import VLLM_OPTIONS, RunningFleet, slow_fleet
from tests.unit.test_stream_reading import entries, heard

GREEDY: dict[str, Any] = {"max_tokens": 400, "temperature": 0.0, "ignore_eos": True}
PENALIZED: dict[str, Any] = GREEDY | {"temperature": 0.8, "frequency_penalty": 0.5, "seed": 3}
WAIT_SECONDS = 600.0


def ask(producer: Producer, fleet: RunningFleet, **fields: Any) -> str:  # noqa: ANN401 - the request's
    """A streamed job's id."""
    request = {"model": fleet.served, "prompt": "Once upon a time", "sampling": GREEDY, "stream": True} | fields
    return producer.submit(**request).job_id


def until(events: Iterable[StreamEvent], enough: int, act: Callable[[], None]) -> list[StreamEvent]:
    """All events; after so many characters ``act`` happens, once."""
    told: list[StreamEvent] = []
    has_acted = False
    for event in events:
        told.append(event)
        if not has_acted and len(heard(told)) >= enough:
            has_acted = True
            act()
    assert has_acted
    return told


def ended(events: list[StreamEvent]) -> StreamEnded:
    """The last event, which is the end, as no other is."""
    assert [isinstance(event, StreamEnded) for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    assert isinstance(last, StreamEnded)
    return last


def kill_workers(fleet: RunningFleet) -> None:
    """As the kernel does when memory runs out."""
    for process in fleet.worker_processes():
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """Answers at 100 tokens a second."""
    with slow_fleet(redis_url, tmp_path) as running:
        yield running


def test_an_answer_is_read_while_it_is_generated(fleet: RunningFleet) -> None:
    """In many pieces, the first of them long before the end; together they are the result."""
    with fleet.producer() as producer:
        job = ask(producer, fleet)
        told = until(producer.stream(job, timeout_seconds=WAIT_SECONDS), 1, lambda: not_ready(producer, job))
        result = ended(told).result
        assert heard(told) == result.text
        assert result.usage.completion_tokens == 400
        assert len(told) > 5
        reasons = [delta.finish_reason for event in told if isinstance(event, StreamDelta) for delta in event.choices]
        assert [reason for reason in reasons if reason] == ["length"]
        assert producer.result(job) == result


def not_ready(producer: Producer, job: str) -> None:
    """The job is not answered yet."""
    with pytest.raises(ResultNotReady):
        producer.result(job, timeout_seconds=0)


def test_a_reader_goes_on_where_it_left_off(fleet: RunningFleet) -> None:
    """While the job runs, and when it has ended: in another process, all it needs is the position."""
    with fleet.producer() as producer:
        job = ask(producer, fleet)
        first: list[StreamEvent] = []
        for event in producer.stream(job, timeout_seconds=WAIT_SECONDS):
            first.append(event)
            if len(heard(first)) > 60:
                break
        second = list(producer.stream(job, after=first[-1].position, timeout_seconds=WAIT_SECONDS))
        result = ended(second).result
        assert heard(first) + heard(second) == result.text
        third = list(producer.stream(job, after=first[-1].position, timeout_seconds=WAIT_SECONDS))
        assert heard(first) + heard(third) == result.text
        assert not any(isinstance(event, StreamRestarted) for event in second + third)


def test_when_the_worker_dies_the_answer_goes_on(fleet: RunningFleet) -> None:
    """The next attempt generates what is missing, and the text is what one attempt would have said."""
    with fleet.producer() as producer:
        whole = producer.result(ask(producer, fleet, stream=False), timeout_seconds=WAIT_SECONDS)
        job = ask(producer, fleet)
        told = until(producer.stream(job, timeout_seconds=WAIT_SECONDS), 60, lambda: kill_workers(fleet))
        result = ended(told).result
        assert heard(told) == result.text == whole.text
        assert not any(isinstance(event, StreamRestarted) for event in told)
        assert (result.attempt, result.usage) == (2, whole.usage)


def test_an_answer_that_can_not_go_on_restarts_once(fleet: RunningFleet) -> None:
    """A penalty counts the tokens of the output, which would be the prompt's; no text of both is ever mixed."""
    with fleet.producer() as producer:
        job = ask(producer, fleet, sampling=PENALIZED)
        told = until(producer.stream(job, timeout_seconds=WAIT_SECONDS), 60, lambda: kill_workers(fleet))
        assert sum(isinstance(event, StreamRestarted) for event in told) == 1
        assert heard(told) == ended(told).result.text


def test_streams_of_failed_cancelled_and_unknown_jobs_end_with_an_error(fleet: RunningFleet) -> None:
    """The same as their results would raise."""
    with fleet.producer() as producer:
        failing = ask(producer, fleet, metadata={"simulate": "fails"})
        with pytest.raises(InferenceFailed, match="told to fail"):
            list(producer.stream(failing, timeout_seconds=WAIT_SECONDS))
        job = ask(producer, fleet, sampling=GREEDY | {"max_tokens": 1000})
        with pytest.raises(InferenceFailed, match="cancelled"):
            until(producer.stream(job, timeout_seconds=WAIT_SECONDS), 20, lambda: assert_cancelled(producer, job))
        with pytest.raises(ResultNotReady):
            list(producer.stream(ask(producer, fleet, sampling=GREEDY | {"max_tokens": 1000}), timeout_seconds=0.3))
        with pytest.raises(UnknownModel):
            producer.submit(model="other", prompt="x", stream=True)


def assert_cancelled(producer: Producer, job: str) -> None:
    """It could be cancelled."""
    assert producer.cancel(job).value == "cancelled"


async def test_many_readers_share_one_producer(fleet: RunningFleet) -> None:
    """Each hears its own job, and one that leaves takes nothing with it."""
    async with AsyncProducer(fleet.redis_url) as producer:
        sampling = GREEDY | {"max_tokens": 60}
        jobs = [
            (await producer.submit(model="sim", prompt=f"Page {number}", sampling=sampling, stream=True)).job_id
            for number in range(100)
        ]

        async def read(job: str, *, leaves: bool) -> list[StreamEvent]:
            told: list[StreamEvent] = []
            async for event in producer.stream(job, timeout_seconds=WAIT_SECONDS):
                told.append(event)
                if leaves:
                    break
            return told

        read_by_all = await asyncio.gather(*(read(job, leaves=at % 4 == 0) for at, job in enumerate(jobs)))
        for at, (job, told) in enumerate(zip(jobs, read_by_all, strict=True)):
            if at % 4 == 0:
                told += [e async for e in producer.stream(job, after=told[-1].position, timeout_seconds=WAIT_SECONDS)]
            result = ended(told).result
            assert (result.id, heard(told)) == (job, result.text)
        assert sum(map(len, read_by_all)) > 4 * len(jobs)


def test_the_command_line_prints_text_as_it_comes(fleet: RunningFleet) -> None:
    """With a new job, and with one that runs or has ended."""
    run = CliRunner(env={"FLEET_REDIS_URL": fleet.redis_url})
    asked = ["submit", "--model", "sim", "--prompt", "Once", "--max-tokens", "30", "--temperature", "0", "--stream"]
    printed = run.invoke(build_app([]), asked)
    assert printed.exit_code == 0
    with fleet.producer() as producer:
        sampling = {"max_tokens": 30, "temperature": 0.0}
        job = producer.submit(model="sim", prompt="Once", sampling=sampling)
        text = producer.result(job, timeout_seconds=WAIT_SECONDS).text
    assert printed.output == f"{text}\n"
    assert run.invoke(build_app([]), ["stream", job.job_id]).output == f"{text}\n"


@pytest.mark.vllm
@pytest.mark.slow
def test_with_vllm_a_killed_workers_answer_goes_on(redis_url: str, tmp_path: Path, tiny_model: Path) -> None:
    """The text of the killed and the next attempt together is that of an attempt that was left in peace."""
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    options |= {"engine.options.max_model_len": 2048, "engine.options.max_num_seqs": 4}
    sampling = GREEDY | {"max_tokens": 1500}
    with RunningFleet(redis_url, tmp_path, str(tiny_model), options) as fleet, fleet.producer() as producer:
        whole = producer.result(ask(producer, fleet, stream=False, sampling=sampling), timeout_seconds=WAIT_SECONDS)
        for _ in range(3):  # the engine may be done before the kill reaches it: then once more
            fleet.wait_until_ready()
            job = ask(producer, fleet, sampling=sampling)
            told = until(producer.stream(job, timeout_seconds=WAIT_SECONDS), 1, lambda: kill_workers(fleet))
            result = ended(told).result
            assert heard(told) == result.text == whole.text
            assert not any(isinstance(event, StreamRestarted) for event in told)
            assert result.usage.completion_tokens == 1500
            if result.attempt == 2:
                break
        assert result.attempt == 2


async def test_whoever_begins_late_hears_the_last_attempt_alone(redis_url: str) -> None:
    """However much was told before it: more than one reply of Redis holds."""
    with Producer(redis_url) as producer, redis.Redis.from_url(redis_url) as server:
        producer.declare_model("m")
        job = producer.submit(model="m", prompt="x", stream=True)
        for entry in [*entries(*["void "] * (MOST_ENTRIES * 2 - 1)), RESTARTED, *entries("first")]:
            server.xadd(keys.stream(job.job_id), {FIELD: entry})
        told = next(iter(producer.stream(job, timeout_seconds=60)))
        async with AsyncProducer(redis_url) as other:
            stream = other.stream(job, timeout_seconds=60)
            assert told == await anext(stream)
            await stream.aclose()
    assert isinstance(told, StreamDelta)
    assert (told.position, told.choices[0].text) == ("1-5", "first")
