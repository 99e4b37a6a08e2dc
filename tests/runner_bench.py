"""A runner on a real loop, over an engine that answers when the test says."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tests.pool_jobs import SILENT_CALLBACKS
from workers.engine.base import Capacity, ChoiceIncrement, Engine, EngineDead, EngineRequest, Increment
from workers.engine.entrance import Patience
from workers.engine.host import EngineHost
from workers.engine.warm_up import WARM_UP_TOKENS
from workers.inference.answer import Answerer
from workers.inference.delivery import Delivery
from workers.observe.records import BatchDrained, JobFinished
from workers.pool.finisher import Finished
from workers.pool.job import PoolJob, TimeLimits
from workers.pool.runner import NO_BOUND, BatchLimits, Runner

NO_LIMITS = TimeLimits(None, None)
SOON_SECONDS = 0.05
NEVER_SECONDS = 3600.0
"""A limit or wait that no test lives to see."""


class HeldEngine(Engine):
    """Holds every request until it is let go; remembers who came and who left early."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.patience: list[Patience] = []
        self.freed: list[str] = []
        self.released = asyncio.Event()
        self.is_dead = False

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        """One word, when the test lets go; the warm-up is not held."""
        if attempt.attempt_id != "warm-up":
            self.arrived.append(attempt.attempt_id)
            self.patience.append(attempt.patience)
            try:
                await self.released.wait()
            finally:
                self.freed.append(attempt.attempt_id)
        if self.is_dead:
            raise EngineDead("its process is gone")
        yield Increment((ChoiceIncrement(0, "word", 1, "stop"),), prompt_tokens=1)

    async def abort(self, attempt_id: str) -> None:
        """The runner cancels instead."""

    async def check_health(self) -> None:
        """Always well."""

    def capacity(self) -> Capacity:
        """Any."""
        return Capacity(WARM_UP_TOKENS, WARM_UP_TOKENS)

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Drains:
    """The observer: sizes of the drains, in order."""

    sizes: list[int] = field(default_factory=list)

    def batch_drained(self, record: BatchDrained) -> None:
        """A micro-batch entered the engine."""
        self.sizes.append(record.job_count)

    def job_finished(self, record: JobFinished) -> None:
        """The pool's, not the runner's."""

    def active_jobs(self, count: int) -> None:
        """The pool's, not the runner's."""


class Bench:
    """A runner over a held engine, and what came out of it."""

    def __init__(self, limits: BatchLimits) -> None:
        self.engine = HeldEngine()
        self.host = EngineHost(self.engine, start_timeout_seconds=10.0, health_interval_seconds=NEVER_SECONDS)
        self.observer = Drains()
        self.finished: list[tuple[PoolJob, Finished]] = []
        self.aborted: list[tuple[PoolJob, str]] = []
        self.timeouts: list[tuple[bool, float]] = []
        self.runner = Runner(self.host, Answerer(self.engine, "m", "w@test"), limits, self.observer, self._finish)

    def _finish(self, job: PoolJob, finished: Finished) -> None:
        self.finished.append((job, finished))

    def _abort(self, job: PoolJob, status: str) -> bool:
        """What the pool does."""
        if job.is_dead:
            return False
        job.is_dead = True
        self.aborted.append((job, status))
        self.runner.cancel(job)
        return True

    def job(self, name: str, limits: TimeLimits = NO_LIMITS, *, queue_priority: int = 3) -> PoolJob:
        """A job whose attempt id is ``name``."""
        arguments = [{"model": "m", "prompt": "x"}]
        return PoolJob(
            delivery=Delivery(name, name, arguments, time.time(), queue_priority=queue_priority),
            callbacks=replace(
                SILENT_CALLBACKS, timed_out=lambda is_soft, limit: self.timeouts.append((is_soft, limit))
            ),
            limits=limits,
            accepted_at=time.monotonic(),
            abort=self._abort,
        )

    def on_loop(self, act: Callable[[], None]) -> None:
        """Do something on the engine's loop, in one turn of it, and wait for that."""

        async def turn() -> None:
            act()

        self.host.run(turn(), 10.0)

    def release(self) -> None:
        """Let every request of the engine go, now and from now on."""
        self.on_loop(self.engine.released.set)

    @contextmanager
    def stopped_loop(self) -> Iterator[None]:
        """The loop does not turn inside: what is offered meanwhile is one burst."""
        entered, leave = threading.Event(), threading.Event()

        def block() -> None:
            entered.set()
            leave.wait(10.0)

        self.host.loop.call_soon_threadsafe(block)
        assert entered.wait(10.0)
        try:
            yield
        finally:
            leave.set()

    @property
    def outcomes(self) -> list[Finished]:
        """What the runner handed over for recording, without the callables that report time limits."""
        return [finished for _, finished in self.finished if not callable(finished)]


@contextmanager
def running(
    max_jobs: int = 4, max_wait_seconds: float = 0.0, *, seats: int = NO_BOUND, reserved_seats: int = 0
) -> Iterator[Bench]:
    """A bench whose engine runs."""
    with running_within(BatchLimits(max_jobs, max_wait_seconds, seats, reserved_seats)) as bench:
        yield bench


@contextmanager
def running_within(limits: BatchLimits) -> Iterator[Bench]:
    """A bench with these limits, whose engine runs."""
    bench = Bench(limits)
    bench.host.start("m")
    try:
        yield bench
    finally:
        bench.host.close()
