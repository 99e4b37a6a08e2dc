"""The engines that the contract tests run on: a simulated one per test, and one vLLM for the whole session."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.contracts.asking import GROUP
from workers.engine.base import Engine, EngineConfig
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine

SHARED_OPTIONS: Final[dict[str, Any]] = {"max_num_seqs": 8, "max_model_len": 512}
VLLM_OPTIONS: Final[dict[str, Any]] = {
    **SHARED_OPTIONS,
    "dtype": "float32",
    "enforce_eager": True,
    "enable_chunked_prefill": False,  # or seeded jobs end the CPU engine: see refuse_seed_that_ends_the_engine
    "scheduling_policy": "priority",  # as a worker starts it
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}


@pytest.fixture(scope="session")
def vllm_environment() -> Iterator[None]:
    """Settings that vLLM reads from the environment: small, quiet, and without a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        patch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_engine(tiny_model: Path, vllm_environment: None) -> AsyncIterator[VllmEngine]:  # noqa: ARG001 - set up first
    """A running vLLM with the tiny model, one for the whole session."""
    engine = VllmEngine(EngineConfig(str(tiny_model), "tiny", VLLM_OPTIONS, refill_jobs=GROUP))
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(loop_scope="session")
async def simulated_engine() -> AsyncIterator[SimulatedEngine]:
    """A running simulated engine of this test's own."""
    engine = SimulatedEngine(EngineConfig("none", "tiny", SHARED_OPTIONS, refill_jobs=GROUP))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(params=["simulated_engine", pytest.param("vllm_engine", marks=pytest.mark.vllm)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    chosen: Engine = request.getfixturevalue(request.param)
    return chosen
