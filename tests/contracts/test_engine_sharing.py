"""vLLM engines that share a device: one says when it owes a first token, the other begins no step meanwhile."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import pytest

from tests.contracts.asking import ENDLESS, answer, increments, request, streamed
from tests.contracts.conftest import VLLM_OPTIONS
from workers.engine.base import EngineConfig, EngineOptionsInvalid
from workers.engine.vllm_engine import VllmEngine
from workers.first_tokens import COUNTS_SECONDS, MAX_WAIT_SECONDS, Announcement, FirstTokens, Yielding, create

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

OWED_SECONDS: Final = 1.0


@contextlib.contextmanager
def owed(file: Path) -> Iterator[None]:
    """A first token is owed all the time."""
    announcement, is_over = Announcement(file), threading.Event()

    def announce() -> None:
        while not is_over.wait(COUNTS_SECONDS / 5):
            announcement.owe()
        announcement.settle()

    announcement.owe()
    thread = threading.Thread(target=announce)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def test_an_engine_owes_from_a_request_until_its_first_token(
    vllm_engine: VllmEngine, first_tokens_file: Path
) -> None:
    """Who reads that token finds nothing owed any more, while the answer goes on."""
    before = time.monotonic()
    async with aclosing(increments(vllm_engine, streamed(request("an interactive job", **ENDLESS)))) as stream:
        await anext(stream)
        reader = Yielding([first_tokens_file])
        assert reader.last_owed > before
        assert reader.wait() == 0.0


async def test_steps_wait_while_a_first_token_is_owed_but_not_for_ever(
    tiny_model: Path,
    tmp_path: Path,
    vllm_engine: VllmEngine,
    vllm_environment: None,  # noqa: ARG001 - set up first
) -> None:
    """Each waits its whole bound, so there are no more of them than bounds; and the answer is what it always is."""
    file = tmp_path / "first-tokens"
    create(file)
    endless = request("a batch job", **ENDLESS)
    engine = VllmEngine(EngineConfig(str(tiny_model), "tiny", VLLM_OPTIONS, first_tokens=FirstTokens(None, (file,))))
    sizes: list[int] = []
    try:
        await engine.start()
        async with aclosing(increments(engine, streamed(endless))) as stream:
            await anext(stream)
            with owed(file):
                began = time.monotonic()
                async for increment in stream:
                    sizes.append(sum(len(choice.token_ids) for choice in increment.choices))
                    if time.monotonic() - began > OWED_SECONDS:
                        break
                seconds = time.monotonic() - began
        # Beyond one per bound: a step that was on its way already, and one that had just been let through.
        assert 1 <= sum(sizes) <= seconds / MAX_WAIT_SECONDS + 2
        assert (await answer(engine, endless)).text == (await answer(vllm_engine, endless)).text
    finally:
        await engine.close()


async def test_two_schedulers_are_refused(
    tiny_model: Path,
    tmp_path: Path,
    vllm_environment: None,  # noqa: ARG001 - set up first
) -> None:
    """Before anything is loaded; the message names both settings."""
    options = {**VLLM_OPTIONS, "scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}
    first_tokens = FirstTokens(yielded_to=(tmp_path / "none",))
    engine = VllmEngine(EngineConfig(str(tiny_model), "tiny", options, first_tokens=first_tokens))
    with pytest.raises(EngineOptionsInvalid, match=r"scheduler_cls .*others_yield.*leave one of them out"):
        await engine.start()
    await engine.close()
