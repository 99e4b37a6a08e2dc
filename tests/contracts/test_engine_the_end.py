"""The orderly end of every engine. The last file of its tier: it closes the vLLM that the other tests share."""

import asyncio

import pytest

from tests.contracts.asking import ENDLESS, answer, increments, request, streamed
from workers.engine.base import Engine, EngineDead

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_closed_engine_is_dead_and_what_ran_was_aborted(engine: Engine) -> None:
    """Closing is an end, not an error, for what runs; nothing runs after it."""
    task = asyncio.create_task(answer(engine, request("long", **ENDLESS)))
    await anext(aiter(increments(engine, streamed(request("first", **ENDLESS)))))
    await engine.close()
    assert (await task).finish_reason == "abort"
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await answer(engine, request("later"))
