"""The app of ``celery -A workers.bench.drivers.celery_threads_app worker``."""

import json
import os
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_ready, worker_shutdown
from redis import Redis

from workers.bench.drivers.celery_threads import READY, TARGET_VARIABLE, URL_VARIABLE
from workers.bench.drivers.stock_celery import CONF, TASK, answer_of
from workers.bench.engines.threaded import ThreadedEngine
from workers.bench.load import BenchJob
from workers.bench.target import EngineTarget

URL = os.environ[URL_VARIABLE]

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(CONF)
engine = ThreadedEngine(EngineTarget(**json.loads(os.environ[TARGET_VARIABLE])))


@app.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery carries no types
def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; it takes its thread until it ends."""
    return answer_of(engine.generate(BenchJob(**job)))


@worker_init.connect  # type: ignore[untyped-decorator]
def start(**_: object) -> None:
    """Load the model before the first task is taken."""
    engine.start()


@worker_ready.connect  # type: ignore[untyped-decorator]
def say_so(**_: object) -> None:
    """Tell the driver."""
    with Redis.from_url(URL) as client:
        client.set(READY, 1)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def stop(**_: object) -> None:
    """Stop the engine's processes."""
    engine.close()
