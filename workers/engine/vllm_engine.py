"""vLLM behind the engine seam: one AsyncLLM (V1) with its EngineCore process, for vLLM 0.26 up to 0.33."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from producer.contract import GenerationRequest
from workers.engine.base import (
    Begun,
    Capacity,
    ChoiceIncrement,
    Engine,
    EngineConfig,
    EngineDead,
    EngineError,
    EngineRequest,
    EngineStartFailed,
    Increment,
)
from workers.engine.entrance import Entrance, group_jobs
from workers.engine.tool_calls import may_call
from workers.engine.vllm_begun import GoingOn, with_begun, without_begun
from workers.engine.vllm_errors import GONE, engine_error
from workers.engine.vllm_failure import cause_in_one_line
from workers.engine.vllm_launch import Launch
from workers.engine.vllm_requests import (
    adapter_of,
    refuse_seed_that_ends_the_engine,
    rendered,
    sampling_params,
    token_ids_of,
)
from workers.engine.vllm_results import generated_tokens, increment_of
from workers.engine.vllm_tools import VllmTools

if TYPE_CHECKING:
    from vllm.config import CacheConfig
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


class VllmEngine(Engine):
    """Generates with vLLM. Nothing is imported from vLLM, and nothing started, before :meth:`start`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._launch: Launch | None = None
        self._llm: AsyncLLM | None = None
        self._attempts: dict[str, bool] = {}
        """Every attempt that is here, and whether it was aborted."""
        self._entrance = Entrance(1)
        self._tools: VllmTools | None = None

    async def start(self) -> None:
        """See :meth:`Engine.start`."""
        self._launch = Launch(self._config)
        await asyncio.wrap_future(self._launch.ended)
        self._llm = self._launch.taken()
        sequences = self._llm.vllm_config.scheduler_config.max_num_seqs
        self._entrance = Entrance(group_jobs(self._config.refill_jobs, sequences))
        try:
            # vLLM asks the engine once and remembers; afterwards a request enters it without giving way in between.
            await self._llm.get_supported_tasks()
            self._tools = VllmTools(self._llm, self._config.tool_call_parser)
        except EngineError:
            raise
        except Exception as error:
            raise EngineStartFailed(cause_in_one_line(error)) from error

    def _running(self) -> "AsyncLLM":
        if self._llm is None:
            raise EngineDead("the engine is not running")
        return self._llm

    async def generate(self, attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        """See :meth:`Engine.generate`."""
        llm = self._running()
        self._attempts[attempt.attempt_id] = False
        try:
            async with aclosing(self._increments(llm, attempt)) as increments:
                async for increment in increments:
                    yield increment
        except EngineError:
            raise
        except Exception as error:
            told = engine_error(error, max_model_len=llm.model_config.max_model_len, errored=llm.errored)
            raise (self._death() if isinstance(told, EngineDead) else told) from error
        finally:
            del self._attempts[attempt.attempt_id]

    async def _increments(self, llm: "AsyncLLM", attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        request = attempt.request
        refuse_seed_that_ends_the_engine(
            request,
            device_type=llm.vllm_config.device_config.device_type,
            splits_prompts=llm.vllm_config.scheduler_config.enable_chunked_prefill,
        )
        params, adapter = sampling_params(request), adapter_of(request, self._config.lora_adapters)
        tools = self._tools.job(request, params) if self._tools is not None else None
        prompt = await rendered(llm, request)
        await self._entrance.enter(attempt.patience)
        if self._attempts[attempt.attempt_id]:  # aborted while vLLM did not know it yet
            yield _ended(request, "abort")
            return
        going_on = None if attempt.begun is None else with_begun(llm, prompt, params, attempt.begun)
        start = going_on or GoingOn(prompt, len(token_ids_of(prompt)))
        increments = _outputs(llm, attempt, params, start, adapter)
        if tools is not None:
            begun = Begun(going_on.begun_token_ids, attempt.begun.text) if going_on and attempt.begun else None
            increments = tools.splitter(token_ids_of(prompt), begun).split(increments)
        if going_on is not None:
            increments = without_begun(increments, going_on)
        async with aclosing(increments):
            async for increment in increments:
                yield increment

    async def abort(self, attempt_id: str) -> None:
        """See :meth:`Engine.abort`."""
        if attempt_id in self._attempts:
            self._attempts[attempt_id] = True
            self._entrance.open()
            if self._llm is not None and not self._llm.errored:
                await self._llm.abort(attempt_id)

    async def check_health(self) -> None:
        """See :meth:`Engine.check_health`; a killed EngineCore shows within a second, a hung one never answers."""
        llm = self._running()
        if llm.errored:
            raise self._death()
        try:
            # EngineCore answers between two steps: what it says does not matter, only that it does.
            await llm.is_sleeping()
        except Exception as error:
            raise self._death() from error

    def _death(self) -> EngineDead:
        cause = self._launch.cause_of_death() if self._launch is not None else None
        return EngineDead(f"vLLM's engine failed: {cause}" if cause else GONE)

    def capacity(self) -> Capacity:
        """See :meth:`Engine.capacity`."""
        config = self._running().vllm_config
        return Capacity(
            max_num_seqs=config.scheduler_config.max_num_seqs,
            max_model_len=config.model_config.max_model_len,
            kv_cache_tokens=kv_cache_tokens(config.cache_config),
            kv_block_tokens=config.cache_config.block_size,
            refill_jobs=self._entrance.group,
        )

    def generated_tokens(self) -> int | None:
        """See :meth:`Engine.generated_tokens`; None with vLLM's ``disable_log_stats``."""
        return generated_tokens() if self._running().log_stats else None

    async def close(self) -> None:
        """See :meth:`Engine.close`."""
        for attempt_id in list(self._attempts):
            await self.abort(attempt_id)
        launch, self._launch = self._launch, None
        llm, self._llm = self._llm, None
        if llm is not None:
            if llm.output_handler is not None:  # vLLM stops it last, and it takes the end of its process for a crash
                llm.output_handler.cancel()
                await asyncio.gather(llm.output_handler, return_exceptions=True)
            await asyncio.to_thread(llm.shutdown)
        elif launch is not None:
            await asyncio.to_thread(launch.abandon)
        if launch is not None:
            launch.forget()


async def _outputs(
    llm: "AsyncLLM",
    attempt: EngineRequest,
    params: "SamplingParams",
    going_on: GoingOn,
    adapter: "LoRARequest | None",
) -> AsyncGenerator[Increment, None]:
    request, taken_over = attempt.request, len(going_on.begun_token_ids)
    if taken_over and (params.max_tokens or 0) <= 0:  # it had all its tokens, and only its end was not told
        yield _ended(request, "length", going_on.prompt_tokens + taken_over)
        return
    follows_priority = llm.vllm_config.scheduler_config.policy == "priority"
    priority = attempt.priority if follows_priority else 0
    with_ids = request.stream or may_call(request)
    traces = attempt.trace_headers is not None and bool(llm.vllm_config.observability_config.otlp_traces_endpoint)
    headers = attempt.trace_headers if traces else None
    generated = llm.generate(
        going_on.prompt,
        params,
        attempt.attempt_id,
        lora_request=adapter,
        priority=priority,
        trace_headers=headers,
    )
    async with aclosing(generated) as outputs:
        async for output in outputs:
            yield increment_of(output, params.logprobs or 0, with_ids=with_ids)


def kv_cache_tokens(cache: "CacheConfig") -> int | None:
    """Tokens whose KV cache fits: the blocks' size, or what vLLM counts itself where that is less; None: not known yet.

    A token of a hybrid model takes blocks of several groups of layers, so fewer fit than the blocks' size says, and
    newer vLLM counts that. One whose layers all have a sliding window takes less than a block per block of text, and
    vLLM's own count is then of whole contexts: more than the blocks hold, and not true of short jobs.
    """
    if not cache.num_gpu_blocks:
        return None
    blocks_tokens: int = cache.num_gpu_blocks * cache.block_size
    own_tokens: int | None = getattr(cache, "kv_cache_size_tokens", None)
    return min(blocks_tokens, own_tokens or blocks_tokens)


def _ended(request: GenerationRequest, finish_reason: str, prompt_tokens: int = 0) -> Increment:
    count = request.sampling.resolved().get("n", 1)
    return Increment(tuple(ChoiceIncrement(index, "", 0, finish_reason) for index in range(count)), prompt_tokens)
