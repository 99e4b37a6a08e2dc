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
from workers.first_tokens import FirstTokens, create

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


@pytest.fixture(scope="session")
def first_tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's vLLM says that it owes a first token."""
    path = tmp_path_factory.mktemp("shared") / "first-tokens"
    create(path)
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_engine(
    tiny_model: Path,
    first_tokens_file: Path,
    vllm_environment: None,  # noqa: ARG001 - set up first
) -> AsyncIterator[VllmEngine]:
    """A running vLLM with the tiny model, one for the whole session.

    It announces its first tokens, as beside an engine that yields: the fleets of the other tiers do not.
    """
    first_tokens = FirstTokens(announced_in=first_tokens_file)
    config = EngineConfig(str(tiny_model), "tiny", VLLM_OPTIONS, refill_jobs=GROUP, first_tokens=first_tokens)
    engine = VllmEngine(config)
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
