"""Jobs of the pool without Celery."""

from typing import Final

from workers.pool.job import Callbacks

SILENT_CALLBACKS: Final = Callbacks(
    trace=lambda: None,
    trace_arguments=(),
    finished=lambda _traced: None,
    timed_out=lambda _is_soft, _limit_seconds: None,
    put_off=lambda _reason: None,
    revoke=lambda: None,
    forget=lambda: None,
)
"""Nobody is told anything; tests replace what they look at."""
