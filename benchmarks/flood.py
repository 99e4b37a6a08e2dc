"""Where an interactive job's time goes while thousands of batch jobs are queued, stage by stage.

``python -m benchmarks.flood --shape tiny --batch-jobs 400 --variant worker.refill_jobs=1 --variant ""``

Per variant (settings with semicolons between them) a local fleet is started; interactive jobs of one token come at a
steady rate, first to the idle fleet and then, some seconds after the batch jobs, into the flood. Each stage's p50, p95
and p99 in milliseconds: ``queued`` in Redis (by its clock), ``engine`` from the engine taking it to its token,
``worker`` all in the worker, ``total`` from submit to result. ``late`` are the jobs that took twice as long as the
middle one: when they came, in seconds, what they took, and of that in the queue and in the engine; stalls that come
regularly show there, and ``…_at`` is the first one's time of day. Batch tokens a second are of the whole flood, from
the first submit to the last result.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from producer import AsyncProducer, GenerationResult
from workers.bench.figures import CUTS, MILLISECONDS, percentile
from workers.bench.load import WORDS
from workers.bench.shapes import model_folder
from workers.local.stack import LocalStack

WARM_UP_JOBS = 20
START_SECONDS = 600
"""How long the first job may wait for the engine that serves it, and the last one for its turn."""

Answer = TypeVar("Answer")


def prompt(draw: random.Random) -> str:
    """50 to 300 words."""
    return " ".join(draw.choices(WORDS, k=draw.randint(50, 300)))


async def at_rate(run: Callable[[], Awaitable[Answer]], count: int, rate: float) -> list[tuple[float, Answer]]:
    """Begin so many a second; the seconds that each took, and what it answered."""
    start = time.perf_counter()

    async def one(at: float) -> tuple[float, Answer]:
        await asyncio.sleep(at - time.perf_counter())
        began_at = time.perf_counter()
        answer = await run()
        return time.perf_counter() - began_at, answer

    return list(await asyncio.gather(*(one(start + number / rate) for number in range(count))))


async def interactive(
    producer: AsyncProducer, model: str, count: int, rate: float
) -> list[tuple[float, GenerationResult]]:
    """The seconds that each job took, and its result."""
    draw = random.Random()  # noqa: S311 - fresh prompts, no secret

    async def one() -> GenerationResult:
        sampling = {"max_tokens": 1, "ignore_eos": True}
        job = await producer.submit(model=model, prompt=prompt(draw), sampling=sampling, priority="interactive")
        return await producer.result(job, timeout_seconds=60)

    return await at_rate(one, count, rate)


def late(taken: Sequence[tuple[float, GenerationResult | None]], rate: float) -> list[tuple[float, ...]]:
    """When the late ones came, in seconds from the first, and their milliseconds: all, and what the worker tells."""
    middle = statistics.median(seconds for seconds, _ in taken)
    found = []
    for number, (seconds, result) in enumerate(taken):
        if seconds > 2 * middle:
            told = (result.timings.queued_seconds, result.timings.first_token_seconds) if result else ()
            found.append((round(number / rate, 2), *(round((part or 0.0) * MILLISECONDS) for part in (seconds, *told))))
    return found


def stages(taken: Sequence[tuple[float, GenerationResult]]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage."""
    parts = {
        "queued": [result.timings.queued_seconds or 0.0 for _, result in taken],
        "engine": [result.timings.first_token_seconds or 0.0 for _, result in taken],
        "worker": [result.timings.total_seconds for _, result in taken],
        "total": [seconds for seconds, _ in taken],
    }
    return {name: percentiles([value * MILLISECONDS for value in values]) for name, values in parts.items()}


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {name: round(percentile(values, share), 1) for name, share in CUTS.items()}


async def warm_up(producer: AsyncProducer, model: str, rate: float) -> None:
    """Until the engine that serves interactive jobs answers, and some jobs more."""
    # Engines that share a GPU start one after another: the first answer may take as long as the last one's start.
    first = await producer.submit(model=model, prompt="first", sampling={"max_tokens": 1}, priority="interactive")
    await producer.result(first, timeout_seconds=START_SECONDS)
    await interactive(producer, model, WARM_UP_JOBS, rate)


def batch_jobs(model: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The flood."""
    draw = random.Random()  # noqa: S311 - fresh prompts, no secret
    low, high = given.output_tokens
    for _ in range(given.batch_jobs):
        sampling = {"max_tokens": draw.randint(low, high), "ignore_eos": True}
        yield {"model": model, "prompt": prompt(draw), "priority": "batch", "sampling": sampling}


async def measure(producer: AsyncProducer, model: str, given: argparse.Namespace) -> dict[str, Any]:
    """Alone, then flooded."""
    alone_at = time.time()
    alone = await interactive(producer, model, given.jobs, given.rate)
    began_at = time.perf_counter()
    batch = [one.submission for one in await producer.submit_many(batch_jobs(model, given)) if one.submission]
    await asyncio.sleep(given.lead_seconds)
    flooded_at = time.time()
    flooded = await interactive(producer, model, given.jobs, given.rate)
    left = sum([(await producer.status(job)).state.value == "queued" for job in batch[-given.slots :]])
    done = await asyncio.gather(*(producer.result(job, timeout_seconds=START_SECONDS) for job in batch))
    took_seconds = time.perf_counter() - began_at
    of_alone, of_flooded = stages(alone), stages(flooded)
    return {
        "flooded_to_alone": {name: round(of_flooded["total"][name] / of_alone["total"][name], 2) for name in CUTS},
        "alone_at": round(alone_at, 2),
        "alone": of_alone,
        "alone_late": late(alone, given.rate),
        "flooded_at": round(flooded_at, 2),
        "flooded": of_flooded,
        "flooded_late": late(flooded, given.rate),
        "last_batch_jobs_still_queued": left,
        "batch_tokens_per_second": round(sum(one.usage.completion_tokens for one in done) / took_seconds),
    }


async def repeats(url: str, model: str, given: argparse.Namespace) -> AsyncIterator[dict[str, Any]]:
    """Each as soon as it is measured."""
    async with AsyncProducer(url) as producer:
        await warm_up(producer, model, given.rate)
        for _ in range(given.repeats):
            yield await measure(producer, model, given)


def main() -> int:
    """Measure every variant and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=1, help="of each variant, one start for all")
    parser.add_argument("--batch-jobs", type=int, default=3000)
    parser.add_argument("--output-tokens", type=int, nargs=2, default=(32, 512))
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--lead-seconds", type=float, default=5.0)
    parser.add_argument("--set", action="append", default=[], help="a setting of every variant, name=value")
    parser.add_argument("--variant", action="append", help="settings of this variant: name=value;name=value")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    asyncio.run(every_variant(given))
    return 0


async def every_variant(given: argparse.Namespace) -> None:
    """Printed, and kept, repeat by repeat: a run that is cut short has told what it had."""
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, options = model_folder(given.shape, Path(scratch))
        usual = {f"engine.options.{name}": value for name, value in options.items()}
        usual |= {"model.name": str(folder), "engine.options.max_num_seqs": given.slots}
        for variant in given.variant or [""]:
            overrides = usual | settings([*given.set, *filter(None, variant.split(";"))])
            with tempfile.TemporaryDirectory() as home, LocalStack(Path(home), overrides) as stack:
                stack.wait_until_ready()
                settled = stack.settings
                async for repeat in repeats(settled.redis.url, settled.model.served_as, given):
                    found.setdefault(variant, []).append(repeat)
                    print(json.dumps({variant or "as it comes": repeat}), flush=True)
                    if given.output:
                        given.output.write_text(json.dumps(found, indent=1))


def settings(pairs: list[str]) -> dict[str, Any]:
    """Settings by name, their values as JSON where they are."""
    read: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            read[name] = json.loads(value)
        except ValueError:
            read[name] = value
    return read


if __name__ == "__main__":
    sys.exit(main())
