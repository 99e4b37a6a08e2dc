"""Where an event loop's requests come from: an iterable of either kind, one item at a time."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Protocol

from producer.submission import Submittable
from producer.tasks import end


class Source(Protocol):
    """Requests that are pulled as there is room for them."""

    exhausted: bool

    async def pull(self, timeout_seconds: float) -> list[Submittable]:
        """The next item; nothing when there is none (any more), or not in time: the next call goes on waiting."""

    async def close(self) -> None:
        """Stop waiting for an item."""


def source_of(requests: Iterable[Submittable] | AsyncIterable[Submittable]) -> Source:
    """The source for an iterable of either kind."""
    return LazySource(requests) if isinstance(requests, AsyncIterable) else ReadySource(requests)


class ReadySource:
    """A plain iterable, which cannot be waited for."""

    def __init__(self, requests: Iterable[Submittable]) -> None:
        self._items = iter(requests)
        self.exhausted = False

    async def pull(self, timeout_seconds: float) -> list[Submittable]:  # noqa: ARG002 - what the protocol passes
        """The next item; nothing when there is none."""
        try:
            return [next(self._items)]
        except StopIteration:
            self.exhausted = True
            return []

    async def close(self) -> None:
        """Nothing was waited for."""


class LazySource:
    """An asynchronous iterable; its item can be given up waiting for, and is not lost."""

    def __init__(self, requests: AsyncIterable[Submittable]) -> None:
        self._items = aiter(requests)
        self._next: asyncio.Future[Submittable] | None = None
        self.exhausted = False

    async def pull(self, timeout_seconds: float) -> list[Submittable]:
        """The next item; nothing when there is none (any more), or not in time: the next call goes on waiting."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._items.__anext__())
        done, _ = await asyncio.wait({self._next}, timeout=timeout_seconds)
        if not done:
            return []
        pulled, self._next = self._next, None
        try:
            return [pulled.result()]
        except StopAsyncIteration:
            self.exhausted = True
            return []

    async def close(self) -> None:
        """Stop waiting for an item."""
        if self._next is not None:
            await end(self._next)
            self._next = None
