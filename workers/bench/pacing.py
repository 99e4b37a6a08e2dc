"""Handing jobs in when they are due, on one event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from workers.bench.load import BenchJob, Load, due
from workers.bench.records import JobRecord, PassRecord

Run = Callable[[BenchJob, JobRecord], Awaitable[None]]
"""Runs one job to its end and completes its record, but for ``ended_at``; raises for a job that is not answered."""


async def paced(load: Load, run: Run) -> PassRecord:
    """Run a pass: the jobs at 0 at once within the window, the later ones at their time."""
    at_once, later = due(load.jobs)
    window = asyncio.Semaphore(load.window or len(load.jobs))
    tasks = await _handed_in(at_once, window, run)
    handed_in_at = time.time()
    for job in later:
        await asyncio.sleep(max(0.0, handed_in_at + job.at_seconds - time.time()))
        tasks += await _handed_in([job], window, run)
    records = await asyncio.gather(*tasks)
    return PassRecord(sorted(records, key=lambda record: record.index), handed_in_at)


async def _handed_in(jobs: Iterable[BenchJob], window: asyncio.Semaphore, run: Run) -> "list[asyncio.Task[JobRecord]]":
    tasks = []
    for job in jobs:
        await window.acquire()
        tasks.append(asyncio.create_task(_one(job, window, run)))
    return tasks


async def _one(job: BenchJob, window: asyncio.Semaphore, run: Run) -> JobRecord:
    record = JobRecord(job.index, submitted_at=time.time())
    try:
        await run(job, record)
    except Exception as error:  # noqa: BLE001 - a job that fails is a figure of the report
        record.failure = f"{type(error).__name__}: {error}"
    finally:
        record.ended_at = time.time()
        window.release()
    return record
