"""What it costs one process to wait for thousands of results that another one stores at a steady pace.

``python -m benchmarks.waiting --waiting 10000 --answers-per-second 640 2000``

The jobs are submitted beforehand. ``results`` is one call that waits for all; ``coroutines`` are as many
``AsyncProducer.result`` calls, of which beginning to wait and being told are counted apart. Prints a line of JSON each:
CPU microseconds per result of the waiting process, and of the server, whose share has the storing in it.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.enqueue import MICROSECONDS, Stand, answer, requests, stand
from producer import AsyncProducer, Submission

SETTLING_SECONDS = 0.5
"""For the coroutines to begin to wait."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--answers-per-second", type=int, nargs="+", default=[640, 2_000])
    given = parser.parse_args()
    print(json.dumps({"hardware": f"{platform.machine()}, {os.cpu_count()} cores", "waiting": given.waiting}))
    with stand(given.waiting) as here:
        for pace in given.answers_per_second:
            print(json.dumps({"answers_per_second": pace, "results": one_call(here, pace)}), flush=True)
            print(
                json.dumps({"answers_per_second": pace, "coroutines": asyncio.run(coroutines(here, pace))}), flush=True
            )
    return 0


@contextmanager
def answered(here: Stand, answers_per_second: int) -> Iterator[list[Submission]]:
    """Jobs that wait, and a process that answers them."""
    here.empty()
    submissions = [outcome.unwrap() for outcome in here.producer.submit_many(requests(here.jobs))]
    answering = multiprocessing.get_context("spawn").Process(
        target=answer, args=(here.server.url, here.jobs, answers_per_second)
    )
    answering.start()
    yield submissions
    answering.join()


def one_call(here: Stand, answers_per_second: int) -> dict[str, float]:
    """Of ``Producer.results``."""
    with answered(here, answers_per_second) as submissions:
        server_before, before = here.server_cpu_seconds, time.process_time()
        count = sum(outcome.result is not None for outcome in here.producer.results(submissions))
        spent, server = time.process_time() - before, here.server_cpu_seconds - server_before
    if count != here.jobs:
        raise RuntimeError(f"{count} of {here.jobs} were answered")
    return {"cpu_us": per_job(spent, here), "server_cpu_us": per_job(server, here)}


async def coroutines(here: Stand, answers_per_second: int) -> dict[str, float]:
    """Of one ``AsyncProducer.result`` for each job."""
    with answered(here, answers_per_second) as submissions:
        async with AsyncProducer(here.server.url) as producer:
            before = time.process_time()
            waiting = [asyncio.create_task(producer.result(job)) for job in submissions]
            await asyncio.sleep(SETTLING_SECONDS)
            begun = time.process_time()
            await asyncio.gather(*waiting)
            told = time.process_time()
    return {"begin_cpu_us": per_job(begun - before, here), "told_cpu_us": per_job(told - begun, here)}


def per_job(seconds: float, here: Stand) -> float:
    """In microseconds."""
    return round(seconds / here.jobs * MICROSECONDS, 1)


if __name__ == "__main__":
    sys.exit(main())
