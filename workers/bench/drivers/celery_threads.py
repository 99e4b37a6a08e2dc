"""``celery-threads``: stock Celery on the stock Redis transport, threads pool, one AsyncLLM in the worker process."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil
from redis import Redis

from workers.bench.drivers.base import environment
from workers.bench.drivers.child import Child
from workers.bench.drivers.server import QueueDriver
from workers.bench.drivers.stock_celery import QUEUE, StockProducer
from workers.bench.load import Load
from workers.bench.records import PassRecord
from workers.bench.target import EngineTarget

URL_VARIABLE: Final = "FLEET_BENCH_REDIS_URL"
TARGET_VARIABLE: Final = "FLEET_BENCH_TARGET"
READY: Final = "bench:ready"


class CeleryThreadsDriver(QueueDriver):
    """See the module."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        told = {URL_VARIABLE: self.server.url, TARGET_VARIABLE: json.dumps(asdict(target))}
        self._worker = Child(self._command(), folder / "worker.log", environment(target) | told)
        self._producer = StockProducer(self.server.url)

    def _command(self) -> list[str]:
        threads = str(self.target.slots_and_headroom)
        lean = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
        app = "workers.bench.drivers.celery_threads_app"
        return [sys.executable, "-m", "celery", "-A", app, "worker", "-P", "threads", "-c", threads, "-Q", QUEUE, *lean]

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        self.start_server(with_listener=True)
        self._worker.start()
        with Redis.from_url(self.server.url) as client:
            self._worker.wait_until(lambda: bool(client.exists(READY)))

    def workers(self) -> list[psutil.Process]:
        """The one worker."""
        return [self._worker.process]

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        if load.backlog_first:
            return self._producer.run_from_a_backlog(load, self.frozen())
        return self._producer.run(load)

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._producer.close()
        self._worker.stop()
        self.stop_server()
