"""Ending asyncio tasks for certain."""

import asyncio
from typing import Any, Final

_CANCEL_AGAIN_SECONDS: Final = 0.05


async def end(task: "asyncio.Future[Any]") -> None:
    """Cancel until it is over; its result or error is nobody's concern any more."""
    while not task.done():
        # Once may not do: Python 3.11's wait_for, which the Redis client sends with, forgets a cancellation that
        # comes at the moment of its success.
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()
