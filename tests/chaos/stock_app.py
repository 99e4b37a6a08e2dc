"""The app of ``celery -A tests.chaos.stock_app worker``; :mod:`tests.chaos.stock` says what it is for."""

import os
import time
from typing import Any, Final

from celery import Celery, Task

from tests.chaos.stock import TASK, URL_VARIABLE, VISIBILITY_VARIABLE

SECONDS_PER_TOKEN: Final = 0.02

app = Celery("chaos", broker=os.environ[URL_VARIABLE], backend=os.environ[URL_VARIABLE])
app.conf.update(
    broker_transport_options={"visibility_timeout": int(os.environ[VISIBILITY_VARIABLE])},
    result_backend_always_retry=True,
    task_acks_late=True,
    task_track_started=True,
    worker_prefetch_multiplier=1,
)


@app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]  # Celery carries no types
def sleep(self: Task, key: str, tokens: int) -> dict[str, Any]:
    """As long as the simulated engine would take, and an answer of the same form."""
    time.sleep(tokens * SECONDS_PER_TOKEN)
    return {
        "id": self.request.id,
        "metadata": {"key": key},
        "usage": {"completion_tokens": tokens},
        "attempt": 2 if self.request.delivery_info.get("redelivered") else 1,
    }
