"""The load of a calibration, on every engine: what it counts, and that it leaves nothing behind."""

import time

import pytest

from tests.contracts.asking import answer, increments, request, streamed
from workers.calibration.load import JobMix, Load, Phase
from workers.engine.base import Engine, EngineConfig, RequestRejected
from workers.engine.entrance import Patience
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine
from workers.engine.warm_up import warm_up

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def load_of(engine: Engine, max_model_len: int = 512) -> Load:
    """A second's load that begins now."""
    mix = JobMix("tiny", max_model_len, await warm_up(engine, "tiny"))
    return Load(engine, mix, Phase(time.monotonic(), ramp_seconds=0.2, measured_seconds=0.8), patience=Patience(0.2))


async def test_a_load_says_what_the_engine_made_and_leaves_it_free(engine: Engine) -> None:
    """Its jobs fit into the context, and those that still run when it ends are aborted."""
    assert await (await load_of(engine)).tokens_per_second() > 0
    assert (await answer(engine, request("after it", max_tokens=3, ignore_eos=True))).token_count == 3


@pytest.mark.vllm
async def test_vllm_counts_the_tokens_of_unfinished_answers_too(vllm_engine: VllmEngine) -> None:
    """Otherwise a few seconds of long jobs would measure nothing."""
    before = vllm_engine.generated_tokens()
    assert before is not None
    seen = []
    async for increment in increments(vllm_engine, streamed(request("count", max_tokens=40, ignore_eos=True))):
        seen.append((vllm_engine.generated_tokens() or 0) - before)
        assert increment.choices[0].finish_reason in (None, "length")
    assert seen[-1] == 40
    assert any(0 < tokens < 40 for tokens in seen)


async def test_a_job_that_is_refused_ends_the_load() -> None:
    """No figure comes of an engine that does not answer."""
    engine = SimulatedEngine(EngineConfig("none", "tiny", {"max_model_len": 16}))
    await engine.start()
    load = await load_of(engine, max_model_len=4_096)
    with pytest.raises(RequestRejected):
        await load.tokens_per_second()
    await engine.close()


async def test_no_two_jobs_of_a_load_are_alike() -> None:
    """Or prefix caching would do their work."""
    jobs = JobMix("tiny", 2_048, 4.0).jobs("seed")
    prompts = [next(jobs).prompt for _ in range(200)]
    assert len(set(prompts)) == 200
