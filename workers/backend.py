"""Celery's Redis result backend, with the results of jobs that finish together in one pipeline.

It also leaves out the SUBSCRIBE that the stock backend sends for every task that is published: who waits for a result
subscribes by itself.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from celery.backends.redis import RedisBackend


class FleetBackend(RedisBackend):
    """Named by the ``result_backend`` setting; Celery makes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(*args, **kwargs)
        self._local = threading.local()

    def on_task_call(self, producer: object, task_id: str) -> None:
        """No SUBSCRIBE per published task."""

    def set(self, key: str, value: bytes | str, expires: float | None = None, **retry_policy: Any) -> Any:  # noqa: ANN401
        """Store and announce a result; inside :meth:`grouped` it waits for :meth:`flush`."""
        pipe = getattr(self._local, "pipe", None)
        if pipe is None:
            return super().set(key, value, expires, **retry_policy)
        lifetime = self.expires if expires is None else expires
        pipe.set(key, value, ex=int(lifetime) if lifetime else None)
        pipe.publish(key, value)
        return None

    @contextlib.contextmanager
    def grouped(self) -> Iterator[None]:
        """Hold back the results that this thread stores; the caller flushes before it leaves."""
        self._local.pipe = self.client.pipeline(transaction=False)
        try:
            yield
        finally:
            self._local.pipe = None

    def flush(self) -> None:
        """Write what this thread held back. SET and PUBLISH may be repeated, so a failed flush may be too."""
        pipe = getattr(self._local, "pipe", None)
        if pipe is None or not len(pipe):
            return
        commands = list(pipe.command_stack)
        try:
            pipe.execute()
        except Exception:
            # execute() forgets its commands even when it fails; the next flush needs them.
            pipe.command_stack = commands
            raise

    def on_chord_part_return(self, request: Any, state: Any, result: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A chord counts its members: the member's own result must be there first."""
        # Retried here: Celery's tracer makes a failed job of one whose chord raises.
        self.ensure(self.flush, ())
        super().on_chord_part_return(request, state, result, **kwargs)
