"""One worker process: the composition root. Reads the settings, builds everything, and runs it until the end.

Started by the supervisor as ``python -m workers.process``, with ``CUDA_VISIBLE_DEVICES`` set before this file is read.
"""

import argparse
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
from celery import Celery, signals
from celery.worker import state as celery_state

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from producer import keys
from workers.app import make_app
from workers.engine.base import EngineError, EngineOptionsInvalid
from workers.engine.host import EngineHost
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE
from workers.from_settings import app_settings, batch_limits, concurrency, connection, consumption, make_engine
from workers.inference.answer import Answerer
from workers.journal import Journal, Lifetimes
from workers.logs import set_up_logging
from workers.observe.http import ObserveServer, PortTaken
from workers.observe.metrics import WorkerMetrics
from workers.observe.phase import Phase, WorkerState
from workers.parent import end_with_parent
from workers.pool.engine_pool import EnginePool, PoolRuntime
from workers.registry import record_served_model
from workers.server_check import ServerDropsJobs, refuse_a_server_that_evicts
from workers.supervisor import OVERRIDES_VARIABLE
from workers.transport.keeper import Callbacks
from workers.transport.service import LeaseService

log = logging.getLogger(__name__)

JOURNAL_STOP_SECONDS: Final = 2.0
LOOP_GRACE_SECONDS: Final = 1.0
GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Python's own 700 means a collection every few jobs, a quarter of the worker's CPU time, and finds next to nothing."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the supervisor tells a worker process."""

    config_file: Path | None
    overrides: dict[str, Any]
    slot: int
    ready_file: Path | None
    engines_on_device: int = 1
    """How many worker processes share this one's GPU, or the machine's CPU."""
    cores: tuple[int, ...] = ()
    """The cores to keep to; none named: all."""


def main() -> int:
    """Run one worker process; the exit code says whether a restart may help (:mod:`workers.exit_codes`)."""
    arguments = _parse(sys.argv[1:])
    end_with_parent()
    if arguments.cores:
        os.sched_setaffinity(0, arguments.cores)  # before any thread exists; those and EngineCore inherit it
    try:
        settings = load_settings(
            config_file=arguments.config_file, environ=os.environ, overrides=arguments.overrides
        ).settings
        set_up_logging(settings.log.level)
        process = WorkerProcess(settings, arguments)
        process.check_server()
    except (SettingsError, PortTaken, ServerDropsJobs) as error:
        return _end(str(error), EXIT_CONFIGURATION)
    try:
        process.start_engine()
    except EngineOptionsInvalid as error:
        return _end(str(error), EXIT_CONFIGURATION)
    except EngineError as error:
        count = arguments.engines_on_device
        beside = f"; {count} engines share its memory: --engines-per-gpu takes fewer" if count > 1 else ""
        return _end(f"the engine did not start: {error}{beside}", EXIT_ENGINE)
    return process.serve()


class WorkerProcess:
    """Everything that lives in one worker process."""

    def __init__(self, settings: Settings, arguments: Arguments) -> None:
        self._settings = settings
        self._ready_file = arguments.ready_file
        self._gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        self._served = settings.model.served_as
        port = settings.metrics.port + arguments.slot
        slug = "".join(character if character.isalnum() else "-" for character in self._served)
        # The port tells workers of one machine apart, and a restarted worker keeps its name.
        self._node = f"{slug}-{port}@{socket.gethostname()}"
        self._host = EngineHost(
            make_engine(settings, arguments.engines_on_device),
            start_timeout_seconds=settings.engine.start_timeout_seconds,
            health_interval_seconds=settings.engine.health_interval_seconds,
            health_timeout_seconds=settings.engine.hang_timeout_seconds,
        )
        self._metrics = WorkerMetrics(self._served)
        self._state = WorkerState(self._served, self._host)
        self._observe = ObserveServer(settings.metrics.host, port, self._state)

    def check_server(self) -> None:
        """Before the model is loaded.

        Raises:
            ServerDropsJobs: the server's settings would lose jobs.
        """
        with self._connect() as client:
            refuse_a_server_that_evicts(client)

    def start_engine(self) -> None:
        """Load the model and warm it up.

        Raises:
            EngineError: it did not start.
        """
        self._host.start(self._served)
        self._metrics.engine_up(is_up=True)
        if self._gpus:
            from workers.observe.gpu_memory import register_gpu_memory

            register_gpu_memory(self._gpus)

    def serve(self) -> int:
        """Take jobs until a signal or the engine's death."""
        settings = self._settings
        client = self._connect()
        journal = Journal(
            client, self._node, Lifetimes(settings.results.job_record_seconds, settings.results.expires_seconds)
        )
        journal.start()
        # A claim that is sent twice claims twice: its own errors are what it is tried again by.
        connect = partial(connection, settings.redis, retries=0)
        service = LeaseService(connect, consumption(settings, self._node, self._host.engine))
        service.leases.appetite.calibrate(self._host.bytes_per_token)
        app = make_app(app_settings(settings), service.leases)
        worker = self._celery_worker(app, self._pool_runtime(service, journal))
        self._host.on_death(self._on_engine_death)
        # weak=False: the receivers are bound methods of an object that Celery does not hold.
        signals.worker_ready.connect(lambda **_: self._on_ready(client), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self._on_shutting_down(service, worker), weak=False)
        service.start(self._keeper_callbacks(worker))
        with contextlib.suppress(SystemExit):  # Celery's way to end at once
            worker.start()
        service.stop()
        journal.stop(JOURNAL_STOP_SECONDS)
        return self._finish(int(worker.exitcode or 0))

    def _connect(self) -> "redis.Redis":
        return connection(self._settings.redis)

    def _pool_runtime(self, service: LeaseService, journal: Journal) -> PoolRuntime:
        settings = self._settings.worker
        return PoolRuntime(
            host=self._host,
            answerer=Answerer(
                self._host.engine, self._served, self._node, now=service.clock.now, tellers=service.streams.teller
            ),
            limits=batch_limits(self._settings, self._host.engine, service.leases.appetite),
            observer=self._metrics,
            journal=journal,
            leases=service.leases,
            engine_tasks=frozenset({keys.TASK_NAME}),
            finisher_threads=settings.finisher_threads,
            drain_timeout_seconds=settings.drain_timeout_seconds,
        )

    def _keeper_callbacks(self, worker: Any) -> Callbacks:  # noqa: ANN401 - Celery's worker has no type
        return Callbacks(
            is_healthy=self._is_engine_working,
            on_lost=worker.pool.lose,
            on_cancelled=worker.pool.cancel,
            on_reaped=self._metrics.leases_reaped,
        )

    def _is_engine_working(self) -> bool:
        silent_seconds, engine = self._host.seconds_since_heartbeat, self._settings.engine
        if silent_seconds > engine.hang_timeout_seconds + engine.health_interval_seconds + LOOP_GRACE_SECONDS:
            # Longer than a health check may take: its loop is stuck, so it cannot say so itself.
            self._host.report_death(f"the engine's loop has not turned for {silent_seconds:.0f} s")
        return self._host.death is None

    def _on_shutting_down(self, service: LeaseService, worker: Any) -> None:  # noqa: ANN401 - Celery's worker has no type
        service.stop_claiming()
        self._enter(Phase.DRAINING)
        # Whoever asks again does not want to wait for running jobs.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: worker.pool.hurry())

    def _celery_worker(self, app: Celery, runtime: PoolRuntime) -> Any:  # noqa: ANN401 - Celery's worker has no type
        return app.Worker(
            hostname=self._node,
            pool_cls=EnginePool.bound_to(runtime),
            concurrency=concurrency(self._settings, self._host.engine),
            queues=[keys.queue(self._served)],
            loglevel=self._settings.log.level,
            without_gossip=True,
            quiet=True,
        )

    def _on_ready(self, client: "redis.Redis") -> None:
        record_served_model(client, self._served)
        collect_garbage_rarely()
        self._enter(Phase.READY)
        if self._ready_file is not None:
            self._ready_file.write_text(f"{os.getpid()}\n")
        log.info("%s takes jobs for %s", self._node, self._served, extra={"action": "worker_ready"})

    def _on_engine_death(self, cause: str) -> None:
        self._enter(Phase.DEAD)
        self._metrics.engine_up(is_up=False)
        log.critical("the engine died: %s", cause, extra={"action": "engine_died"})
        # Celery's main loop sees this within a second, closes, and its channel gives the unfinished jobs back.
        celery_state.should_terminate = EXIT_ENGINE

    def _enter(self, phase: Phase) -> None:
        if self._state.phase is not Phase.DEAD:
            self._state.phase = phase

    def _finish(self, exit_code: int) -> int:
        if self._host.death is not None:
            # Nothing to close: a hung engine would keep us waiting, and the supervisor kills what is left of it.
            return _end(f"the engine died: {self._host.death}", EXIT_ENGINE)
        self._host.close()
        self._observe.close()
        return exit_code


def collect_garbage_rarely() -> None:
    """From now on; and never look again at what was loaded until here, which lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _parse(argv: list[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m workers.process", description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--engines-on-device", type=int, default=1)
    parser.add_argument("--cores", default="", help="numbers with commas")
    given = parser.parse_args(argv)
    overrides = json.loads(os.environ.get(OVERRIDES_VARIABLE, "{}"))
    return Arguments(
        config_file=given.config,
        overrides=overrides,
        slot=given.slot,
        ready_file=given.ready_file,
        engines_on_device=given.engines_on_device,
        cores=tuple(int(core) for core in given.cores.split(",") if core),
    )


def _end(sentence: str, exit_code: int) -> int:
    print(f"fleet worker: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - also when logging is not set up
    return exit_code


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread stuck in a dead engine or in a library's exit handler must not keep the GPU.
    os._exit(exit_code)
