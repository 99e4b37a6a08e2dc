"""One worker process: the composition root. Reads the settings, builds everything, and runs it until the end.

Started by the supervisor as ``python -m workers.process``, with ``CUDA_VISIBLE_DEVICES`` set before this file is read.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from typing import Any, Final

import redis
from celery import Celery, signals
from celery.worker import state as celery_state

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.variables import variables
from producer import keys
from producer.errors import InvalidRequest
from producer.logs.options import LogOptions
from producer.presence import Phase
from producer.refusals import advice
from workers.app import make_app
from workers.control import register_commands
from workers.engine.base import EngineError, EngineOptionsInvalid
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE
from workers.from_settings import app_settings, batch_limits, concurrency, connection, consumption, make_host
from workers.inference.answer import Answerer
from workers.journal import Journal, Lifetimes
from workers.logs import last_words, set_up_worker_logging
from workers.observe.http import PageServer, PortTaken, worker_pages
from workers.observe.job_lines import with_lines
from workers.observe.metrics import WorkerMetrics
from workers.observe.phase import WorkerState
from workers.parent import end_with_parent
from workers.pool.engine_pool import EnginePool, PoolRuntime
from workers.presence import Description, Presence, introduction
from workers.process_arguments import Arguments, parse
from workers.registry import record_adapters, record_aliases, record_served_model
from workers.server_check import ServerDropsJobs, ServerRefuses, refuse_an_unfit_server
from workers.tracing import Tracing
from workers.transport.keeper import Callbacks
from workers.transport.service import LeaseService

log = logging.getLogger("workers.process")  # also when it is __main__

JOURNAL_STOP_SECONDS: Final = 2.0
LOOP_GRACE_SECONDS: Final = 1.0
GC_THRESHOLDS: Final = (20_000, 20, 20)
"""Python's own 700 means a collection every few jobs, a quarter of the worker's CPU time, and finds next to nothing."""


def main() -> int:
    """Run one worker process; the exit code says whether a restart may help (:mod:`workers.exit_codes`)."""
    arguments = parse(sys.argv[1:])
    end_with_parent(arguments.parent)
    if arguments.cores:
        os.sched_setaffinity(0, arguments.cores)  # before any thread exists; those and EngineCore inherit it
    try:
        settings = load_settings(
            config_file=arguments.config_file, environ=os.environ, overrides=arguments.overrides
        ).settings
        _set_up_logging(settings, arguments.slot)
        process = WorkerProcess(settings, arguments)
        process.check_server()
    except (SettingsError, PortTaken, ServerDropsJobs, ServerRefuses, InvalidRequest) as error:
        return _end(str(error), EXIT_CONFIGURATION)
    try:
        process.start_engine()
    except EngineOptionsInvalid as error:
        return _end(str(error), EXIT_CONFIGURATION)
    except EngineError as error:
        count = arguments.engines_on_device
        beside = f"; {count} engines share its memory: --engines-per-gpu takes fewer" if count > 1 else ""
        return _end(f"the engine did not start: {error}{beside}", EXIT_ENGINE)
    try:
        return process.serve()
    except redis.exceptions.NoPermissionError as error:
        return _end(f"redis.url: {error}: {advice(error)}", EXIT_CONFIGURATION)


class WorkerProcess:
    """Everything that lives in one worker process."""

    def __init__(self, settings: Settings, arguments: Arguments) -> None:
        self._settings = settings
        self._ready_file = arguments.ready_file
        self._gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        self._served = settings.model.served_as
        port = settings.metrics.port + arguments.slot
        self._node = _node(self._served, port)
        self._host = make_host(settings, arguments.engines_on_device, arguments.first_tokens)
        self._metrics = WorkerMetrics(self._served)
        self._state = WorkerState(self._served, self._host)
        self._observe = PageServer(settings.metrics.host, port, worker_pages(self._state))
        pages = f"http://{settings.metrics.host}:{port}"
        fixed = introduction(self._node, self._served, settings.engine.kind, self._gpus, pages)
        fixed = replace(fixed, lanes=settings.worker.lanes)
        self._tracing = Tracing(self._node, self._served) if settings.tracing.enabled else None
        self._presence = Presence(self._connect(), Description(self._state, self._metrics.activity, fixed))

    def check_server(self) -> None:
        """Before the model is loaded.

        Raises:
            ServerDropsJobs: the server's settings would lose jobs.
            ServerRefuses: TLS refuses the server, or the server us.
        """
        with self._connect() as client:
            refuse_an_unfit_server(client, self._served)

    def start_engine(self) -> None:
        """Load the model and warm it up.

        Raises:
            EngineError: it did not start.
        """
        self._presence.start()
        try:
            self._host.start(self._served)
        except EngineError:
            self._presence.stop()
            raise
        self._presence.description.slots = concurrency(self._settings, self._host.engine)
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
        self._presence.description.consumer = service.consumer
        app = make_app(app_settings(settings), service.leases)
        register_commands()
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
        self._presence.stop()
        if self._tracing is not None:
            self._tracing.close()
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
            observer=with_lines(self._metrics),
            journal=journal,
            leases=service.leases,
            engine_tasks=frozenset({keys.TASK_NAME}),
            finisher_threads=settings.finisher_threads,
            drain_timeout_seconds=settings.drain_timeout_seconds,
            tracing=self._tracing,
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
        record_aliases(client, self._served, self._settings.model.other_names)
        record_adapters(client, self._served, self._settings.model.adapters)
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
            self._presence.tell()

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


def _node(served: str, port: int) -> str:
    slug = "".join(character if character.isalnum() else "-" for character in served)
    # The port tells workers of one machine apart, and a restarted worker keeps its name.
    return f"{slug}-{port}@{socket.gethostname()}"


def _set_up_logging(settings: Settings, slot: int) -> None:
    served = settings.model.served_as
    options = LogOptions.of_environment(variables(settings, "log"))
    set_up_worker_logging(options, "worker", model=served, worker=_node(served, settings.metrics.port + slot))
    # Celery then leaves logging as it is; weak=False, because nobody else holds the receiver.
    signals.setup_logging.connect(lambda **_: None, weak=False)


def _end(sentence: str, exit_code: int) -> int:
    last_words(f"fleet worker: {sentence}")
    return exit_code


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread stuck in a dead engine or in a library's exit handler must not keep the GPU.
    os._exit(exit_code)
