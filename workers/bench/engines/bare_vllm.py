"""vLLM's AsyncLLM, called directly, for vLLM 0.26 up to 0.33."""

import time
from itertools import count
from typing import TYPE_CHECKING, Any

from workers.bench.engines.base import GREEDY, BareEngine, Generated
from workers.bench.load import BenchJob
from workers.bench.target import BenchError, EngineTarget

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class BareVllm(BareEngine):
    """One AsyncLLM with its EngineCore process; one output per job, as for jobs of the fleet that do not stream."""

    def __init__(self, target: EngineTarget) -> None:
        self._target = target
        self._llm: AsyncLLM | None = None
        self._numbers = count()

    async def start(self) -> None:
        """See :meth:`BareEngine.start`."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=self._target.model, served_model_name=self._target.served, **self._target.options
        )
        self._llm = AsyncLLM.from_engine_args(arguments)

    async def generate(self, job: BenchJob) -> Generated:
        """See :meth:`BareEngine.generate`."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        if self._llm is None:
            raise BenchError("the engine is not running")
        began_at = time.time()
        [prompt] = await self._llm.renderer.render_cmpl_async([parse_model_prompt(self._llm.model_config, job.prompt)])
        params = SamplingParams(**GREEDY, max_tokens=job.output_tokens, output_kind=RequestOutputKind.FINAL_ONLY)
        output: Any = None
        async for output in self._llm.generate(prompt, params, f"bare-{next(self._numbers)}"):  # noqa: B007 - the last
            pass
        return generated(output, began_at, job.output_tokens)

    async def close(self) -> None:
        """See :meth:`BareEngine.close`."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()


def generated(output: Any, began_at: float, asked_tokens: int) -> Generated:  # noqa: ANN401 - vLLM's RequestOutput
    """What vLLM's last output of a job says."""
    latency_seconds = output.metrics.first_token_latency if output.metrics is not None else None
    first_at = began_at + latency_seconds if latency_seconds else None
    if asked_tokens == 1:
        first_at = time.time()
    return Generated(first_at, len(output.prompt_token_ids or ()), len(output.outputs[0].token_ids))
