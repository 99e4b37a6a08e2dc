"""Connections that do not forget a cancellation.

redis-py writes a command inside ``asyncio.wait_for``. Up to Python 3.11 that answers a cancellation which comes at the
moment of its success with the success (https://github.com/python/cpython/issues/86296): the task goes on to wait for
its reply, and whoever cancelled it, a timeout or a task group, waits for it in vain.
"""

import asyncio
import sys
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection

Kind = TypeVar("Kind", bound=type[AbstractConnection])

FORGETS = sys.version_info < (3, 12)


def cancellable(kind: Kind) -> Kind:
    """The kind of connection, with that mended; itself where Python does not forget."""
    return type(kind.__name__, (_Remembering, kind), {}) if FORGETS else kind  # type: ignore[return-value]


class _Remembering:
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 - as the library has it
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)  # type: ignore[misc]
        if task and task.cancelling() > asked:
            # As the library does where a command breaks off: the next one on this connection would read its reply.
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise asyncio.CancelledError
