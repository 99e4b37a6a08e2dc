"""Ending asyncio tasks for certain."""

import asyncio
from typing import Any, Final

_CANCEL_AGAIN_SECONDS: Final = 0.05


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel until all are over; their results or errors are nobody's concern any more."""
    # All of them before the first wait: anyio, and so Starlette, cancels its caller again at everything that it awaits.
    for task in tasks:
        task.cancel()
        task.add_done_callback(_leave_result)
    # Once may not do: Python 3.11's wait_for, which libraries wait with, forgets a cancellation that comes at the
    # moment of its success (see producer.cancellable for the Redis client's).
    while left := {task for task in tasks if not task.done()}:
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
        for task in left:
            task.cancel()


def _leave_result(task: "asyncio.Future[Any]") -> None:
    # An error that nobody asked for would be logged.
    if not task.cancelled():
        task.exception()
