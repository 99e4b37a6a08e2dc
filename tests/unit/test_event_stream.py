"""Server-sent events as the official client reads them."""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest
from openai._streaming import SSEDecoder

from producer.gateway import waiting
from producer.gateway.waiting import EventStream, event


async def test_a_pause_is_no_event_to_the_official_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has seen an id, it takes any empty line for an event, and fails on one without data."""
    monkeypatch.setattr(waiting, "KEEP_ALIVE_SECONDS", 0.01)
    has_paused = asyncio.Event()
    sent: list[bytes] = []

    async def told() -> AsyncGenerator[bytes, None]:
        yield event({"n": 1}, event_id="a")
        await has_paused.wait()
        yield event({"n": 2}, event_id="b")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))
        if b"nothing new" in sent[-1]:
            has_paused.set()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def gone() -> None:
        raise AssertionError

    await EventStream(told(), gone)({}, receive, send)
    assert any(b"nothing new" in chunk for chunk in sent)
    read = [(one.id, one.data) for one in SSEDecoder().iter_bytes(iter(sent))]
    assert read == [("a", '{"n":1}'), ("b", '{"n":2}')]


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is open, and its buffers are full: as one that left."""
    monkeypatch.setattr(waiting, "TAKING_SECONDS", 0.05)
    left: list[str] = []

    async def told() -> AsyncGenerator[bytes, None]:
        try:
            yield event({"n": 1})
            yield event({"n": 2})
        finally:
            left.append("events closed")

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def gone() -> None:
        left.append("gone")

    async with asyncio.timeout(20):
        await EventStream(told(), gone)({}, receive, send)
    assert left == ["gone", "events closed"]
