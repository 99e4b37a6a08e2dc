"""What a scenario runs on: a server, workers, a submitting process, and those that watch from outside."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import redis

from producer import keys
from tests.chaos.evidence import Evidence, Window
from tests.chaos.fleet_worker import BACK_AT_ONCE, SIMULATED, VLLM, FleetWorker, WorkerOrders
from tests.chaos.jobs import JobShape, job_of, number_of
from tests.chaos.lease_view import Lease, LeaseView, RedeliveryClock
from tests.chaos.observer import ResultObserver, terminal_results
from tests.chaos.remains import job_ids_in, residue_of
from tests.chaos.scenarios import Scenario
from tests.chaos.servers import PowerLossServer, SmallDiskServer, running
from tests.chaos.stock import MODEL as STOCK_MODEL
from tests.chaos.stock import StockWorker
from tests.chaos.submitter import Orders
from tests.chaos.submitting import SubmittingProcess
from tests.chaos.surroundings import clock_environment, refuse_without_mount_namespaces
from tests.waiting import free_port
from workers.embedded import EmbeddedServer
from workers.models.tiny import make_tiny_model

POLL_SECONDS: Final = 0.02
VLLM_TOKENS_FACTOR: Final = 5
"""vLLM writes so many tokens of the tiny model while the simulated engine writes one."""
STALL_SECONDS: Final = 180.0
"""A fleet that does nothing for so long has come to a stop."""
STOCK_STALL_SECONDS: Final = 130.0
"""Stock kombu looks about every 100 s for what it may hand out again."""
WATCH_TIMEOUT_SECONDS: Final = 5.0

Worker = FleetWorker | StockWorker


class Stalled(Exception):
    """Something that had to happen did not; the message says what."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    scenario: Scenario
    seed: int
    transport: str
    """``fleet`` or ``stock``."""
    stock_visibility_seconds: int


class Stand:
    """A context manager: everything runs inside, and nothing that it started outlives it."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.scenario = plan.scenario
        self.folder = folder
        self.is_stock = plan.transport == "stock"
        self.server = _server(plan.scenario, folder)
        self.client = redis.Redis.from_url(self.server.url, socket_timeout=WATCH_TIMEOUT_SECONDS)
        self.loss_windows: list[Window] = []
        self.exit_codes: list[int] = []
        self._model = self._make_model()
        self.leases = LeaseView(self.client, self.model)
        self.redelivery = RedeliveryClock(self.leases)
        self.observer = ResultObserver(self.server.url)
        self.submitting = SubmittingProcess(self._orders(), folder)
        self.workers: list[Worker] = []
        self._orphaned: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.client.close)
            stack.enter_context(running(self.server))
            self.observer.start()
            stack.callback(self.observer.stop)
            if not self.is_stock:
                self.client.hset(keys.MODELS, self.model, '{"declared_by":"operator","since":0}')
                self.redelivery.start()
                stack.callback(self.redelivery.stop)
            stack.callback(self.stop_workers)
            for index in range(self.scenario.workers):
                self.workers.append(self._worker(index))
                self.workers[-1].start()
            self.submitting.start()
            stack.callback(self.submitting.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def model(self) -> str:
        """The name that jobs use."""
        return STOCK_MODEL if self.is_stock else Path(self._model).name

    def _make_model(self) -> str:
        return "sim" if self.scenario.engine == "simulated" else str(make_tiny_model(self.folder / "tiny"))

    def _orders(self) -> Orders:
        scenario = self.scenario
        return Orders(
            redis_url=self.server.url,
            model=self.model,
            transport=self.plan.transport,
            ledger=str(self.folder / "ledger.jsonl"),
            jobs=scenario.jobs,
            backlog=scenario.backlog,
            shape=self._shape(),
        )

    def _shape(self) -> JobShape:
        shape = replace(self.scenario.shape, seed=self.plan.seed)
        factor = VLLM_TOKENS_FACTOR if self.scenario.engine == "vllm" else 1
        return replace(
            shape, shortest_tokens=factor * shape.shortest_tokens, longest_tokens=factor * shape.longest_tokens
        )

    def _worker(self, index: int) -> Worker:
        if self.is_stock:
            return StockWorker(index, self.server.url, self.folder, self.plan.stock_visibility_seconds)
        offsets = dict(enumerate(self.scenario.clock_offsets_seconds))
        engine: Mapping[str, Any] = SIMULATED if self.scenario.engine == "simulated" else VLLM
        orders = WorkerOrders(
            redis_port=self.server.port,
            folder=self.folder,
            model=self._model,
            settings={**engine, **BACK_AT_ONCE, **self.scenario.settings},
            environ=clock_environment(offsets.get(index, 0), self.folder),
            has_proxy=self.scenario.needs_proxies,
        )
        return FleetWorker(index, orders)

    def server_seconds(self) -> float:
        """The server's clock, in seconds since the epoch."""
        seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6

    def holders(self) -> list[Worker]:
        """The living workers that hold jobs."""
        for worker in self.workers:
            worker.look_after()
        nodes = (
            self.observer.running_on().keys() if self.is_stock else {lease.worker for lease in self._living_leases()}
        )
        return [worker for worker in self.workers if worker.node in nodes and worker.process() is not None]

    def _living_leases(self) -> list[Lease]:
        """A worker that was killed comes back under its name while its old leases run out: those are not its own."""
        return [lease for lease in self.leases.current() if lease.tag not in self._orphaned]

    def held_by(self, worker: Worker) -> list[Lease]:
        """The leases of the process that runs under this worker's name, or ran there last."""
        return [lease for lease in self._living_leases() if lease.worker == worker.node]

    def watch_killed(self, fault: str, worker: Worker, since: float) -> None:
        """The worker's process is gone since then, and what it holds now it held when it died."""
        orphaned = self.held_by(worker)
        self._orphaned |= {lease.tag for lease in orphaned}
        self.redelivery.watch(fault, orphaned, since)

    def victim(self, rng: random.Random) -> Worker:
        """A worker that holds jobs, while enough others do.

        Raises:
            Stalled: there is none for minutes.
        """
        holders: list[Worker] = []

        def enough() -> bool:
            holders[:] = self.holders()
            return len(holders) > self.scenario.survivors

        self.until(enough, what=f"more than {self.scenario.survivors} workers hold jobs")
        return rng.choice(holders)

    def until(self, condition: Callable[[], object], *, what: str, seconds: float = STALL_SECONDS) -> None:
        """Wait until ``condition()`` is true.

        Raises:
            Stalled: it is not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Stalled(f"{what}: not within {seconds:g} s")
            self.pause(POLL_SECONDS)

    def pause(self, seconds: float) -> None:
        """A fault's length or the distance to the next; nothing is waited for."""
        threading.Event().wait(seconds)

    def note_loss_window(self, begins_at: float, ends_at: float) -> None:
        """The server may have lost what was written between these moments, seconds since the epoch."""
        self.loss_windows.append(Window(begins_at, ends_at))

    def finish(self) -> None:
        """Submit no more, and wait until every job has ended or nothing moves any more.

        Raises:
            Stalled: nothing has moved for minutes and jobs are left.
        """
        self.until(lambda: self.submitting.has_begun, what="the producer submits")
        self.submitting.finish()
        patience_seconds = STOCK_STALL_SECONDS if self.is_stock else STALL_SECONDS
        while sum(self.residue().values()):
            answered = self.observer.answered
            self.until(
                lambda: self.observer.answered > answered or not sum(self.residue().values()),  # noqa: B023 - at once
                what="the next job ends",
                seconds=patience_seconds,
            )

    def residue(self) -> dict[str, int]:
        """What is left in Redis of every key that must be empty in the end."""
        return residue_of(self.client, self.model)

    def stop_workers(self) -> None:
        """SIGTERM to all; idempotent."""
        while self.workers:
            self.exit_codes.append(self.workers.pop().stop())

    def evidence(self) -> Evidence:
        """What the run leaves; its workers have stopped by now."""
        submissions = self.submitting.submitted()
        shape = self._shape()
        return Evidence(
            submissions=submissions,
            tokens_by_key={each.key: job_of(shape, number_of(each.key)).tokens for each in submissions},
            seen=self.observer.seen,
            stored=terminal_results(self.client),
            residue=self.residue(),
            still_queued=job_ids_in(self.client, self.model),
            loss_windows=self.loss_windows,
            max_attempt=self.scenario.max_attempt,
        )


def _server(scenario: Scenario, folder: Path) -> EmbeddedServer:
    data = folder / "valkey"
    match scenario.server:
        case "power_loss":
            return PowerLossServer(data, free_port())
        case "small_disk":
            refuse_without_mount_namespaces()
            return SmallDiskServer(data, free_port())
        case fsync:
            return EmbeddedServer(data, free_port(), append_fsync=fsync)
