"""What a worker relies on inside vLLM: its order of waiting jobs, and what it says of its KV cache."""

import asyncio

import pytest

from producer.contract import Priority
from producer.keys import PRIORITY_STEPS
from tests.contracts.asking import ENDLESS, attempt, only, request
from workers.engine.base import EngineRequest
from workers.engine.vllm_engine import VllmEngine

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

SOON_SECONDS = 30.0


def short(lane: Priority, name: str) -> EngineRequest:
    """A short job of this lane."""
    return EngineRequest(name, request(f"job {name}", max_tokens=4, ignore_eos=True), PRIORITY_STEPS[lane])


async def known(engine: VllmEngine, count: int) -> None:
    """Return when so many jobs are inside."""
    assert engine._llm is not None
    async with asyncio.timeout(SOON_SECONDS):
        while len(engine._llm.output_processor.request_states) < count:
            await engine.check_health()
    await engine.check_health()  # EngineCore itself answers, after what was sent to it before


async def test_an_interactive_job_overtakes_batch_jobs_that_wait_inside_the_engine(vllm_engine: VllmEngine) -> None:
    """All sequences are taken; when one ends, the job that came last but is most urgent runs first."""
    slots = vllm_engine.capacity().max_num_seqs
    running = [attempt(request(f"long {number}", **ENDLESS)) for number in range(slots)]
    tasks = [asyncio.create_task(only(vllm_engine, one)) for one in running]
    await known(vllm_engine, slots)
    ended: list[str] = []

    async def wait_for(job: EngineRequest) -> None:
        await only(vllm_engine, job)
        ended.append(job.attempt_id)

    jobs = [short(Priority.BATCH, f"batch-{number}") for number in range(4)]
    jobs.append(short(Priority.INTERACTIVE, "interactive"))
    waiting = []
    for count, job in enumerate(jobs, start=1):
        waiting.append(asyncio.create_task(wait_for(job)))
        await known(vllm_engine, slots + count)
    assert ended == []
    await vllm_engine.abort(running[0].attempt_id)
    await asyncio.gather(*waiting)
    for one in running[1:]:
        await vllm_engine.abort(one.attempt_id)
    await asyncio.gather(*tasks)
    assert ended[0] == "interactive"
    assert len(ended) == len(jobs)


async def test_the_kv_caches_size_is_what_vllms_own_metrics_say(vllm_engine: VllmEngine) -> None:
    """Blocks times their size; for a model with full attention in every layer that is all there is to it."""
    from prometheus_client import REGISTRY

    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    [labels] = [sample.labels for sample in samples if sample.name == "vllm:cache_config_info"]
    capacity = vllm_engine.capacity()
    assert capacity.kv_block_tokens == int(labels["block_size"])
    assert capacity.kv_cache_tokens == int(labels["num_gpu_blocks"]) * int(labels["block_size"])
