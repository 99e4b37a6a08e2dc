"""From a job to what vLLM takes: a rendered prompt and sampling parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from producer.contract import FailureCode, GenerationRequest, ResponseFormat
from workers.engine.adapters import refuse_unknown_adapter
from workers.engine.base import RequestRejected
from workers.engine.vllm_tools import messages_of, plain_choice, shown_tools

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM

NO_CHAT_TEMPLATE: Final = "this model has no chat template, so it can not take messages; send a prompt instead"


async def rendered(llm: "AsyncLLM", request: GenerationRequest) -> "EngineInput":
    """The prompt as tokens, rendered off the loop; messages with the model's own chat template.

    Raises:
        RequestRejected: it does not fit into the context, or the model can not chat.
        Exception: whatever vLLM raises for a prompt that it can not render.
    """
    _refuse_half_characters(request)
    longest = llm.model_config.max_model_len - 1
    _refuse_longer(len(request.prompt_token_ids or ()), longest)
    prompt: EngineInput
    if request.messages is not None:
        prompt = await _rendered_chat(llm, request)
    else:
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        ids = request.prompt_token_ids
        parsed = parse_model_prompt(llm.model_config, request.prompt if ids is None else list(ids))
        (prompt,) = await llm.renderer.render_cmpl_async([parsed])
    _refuse_longer(len(token_ids_of(prompt)), longest)
    return prompt


def refuse_seed_that_ends_the_engine(request: GenerationRequest, *, device_type: str, splits_prompts: bool) -> None:
    """Keep a job from ending the whole engine: vLLM's CPU build can not rewind a seeded job's random numbers.

    It has to when a prompt is computed in several steps (``gpu_model_runner``, seen in 0.32: "CPU Generator does not
    use offset"), and whether one is depends on the jobs beside it.

    Raises:
        RequestRejected: the job is seeded and sampled, on a CPU, with chunked prefill.
    """
    options = request.sampling.resolved()
    is_sampled = options.get("temperature", 1.0) > 0
    if device_type == "cpu" and splits_prompts and is_sampled and options.get("seed") is not None:
        raise RequestRejected(
            FailureCode.INVALID_REQUEST,
            "sampling.seed: vLLM's CPU build serves no seeded sampling with chunked prefill; leave the seed out, "
            "or start the worker with engine.options.enable_chunked_prefill = false",
        )


def token_ids_of(prompt: Mapping[str, Any]) -> Sequence[int]:
    """The prompt's tokens; none where it has other inputs."""
    return prompt.get("prompt_token_ids") or ()


def _refuse_half_characters(request: GenerationRequest) -> None:
    # JSON and str can hold lone surrogates, no tokenizer can, and none of them says so in words.
    try:
        for text in request.texts:
            text.encode()
    except UnicodeEncodeError as error:
        message = f"the prompt holds half a character (a lone surrogate) at position {error.start}"
        raise RequestRejected(FailureCode.INVALID_REQUEST, message) from error


def _refuse_longer(size_tokens: int, longest_tokens: int) -> None:
    if size_tokens > longest_tokens:
        raise RequestRejected(
            FailureCode.CONTEXT_LENGTH_EXCEEDED,
            f"the prompt has {size_tokens} tokens; this model takes at most {longest_tokens}, "
            "so that one more fits into its context",
        )


async def _rendered_chat(llm: "AsyncLLM", request: GenerationRequest) -> "EngineInput":
    from vllm.renderers.params import ChatParams
    from vllm.utils.mistral import is_mistral_tokenizer

    prompt: EngineInput
    messages: list[Any] = messages_of(request)
    # As text first, as vLLM's own server does: a text that is far too long is then refused before it is tokenized.
    as_tokens = is_mistral_tokenizer(llm.renderer.tokenizer) or llm.model_config.enable_prompt_embeds
    shown: dict[str, Any] = {"add_generation_prompt": True, "tokenize": as_tokens, "tools": shown_tools(request)}
    params = ChatParams(chat_template_kwargs=shown)
    if request.tools is not None and hasattr(params, "tool_choice"):  # not yet in 0.26; a few renderers show it
        params = replace(params, tool_choice=plain_choice(request))
    try:
        _, (prompt,) = await llm.renderer.render_chat_async([messages], params)
    except ValueError as error:
        # By name: the class moved between vLLM 0.26 and 0.32.
        if type(error).__name__ == "ChatTemplateResolutionError":
            raise RequestRejected(FailureCode.INVALID_REQUEST, NO_CHAT_TEMPLATE) from error
        raise
    return prompt


def sampling_params(request: GenerationRequest) -> "SamplingParams":
    """This job's own sampling parameters.

    Raises:
        Exception: whatever vLLM raises for a combination that it refuses.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    resolved = request.sampling.resolved()
    options: dict[str, Any] = {name: list(it) if isinstance(it, tuple) else it for name, it in resolved.items()}
    return SamplingParams(
        **options,
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
        structured_outputs=_structured_outputs(request.response_format),
    )


def adapter_of(request: GenerationRequest, adapters: Mapping[str, str]) -> "LoRARequest | None":
    """The adapter that answers; None: the model itself.

    Raises:
        RequestRejected: this engine has none such.
    """
    refuse_unknown_adapter(request, adapters)
    if request.lora is None:
        return None
    from vllm.lora.request import LoRARequest

    # vLLM knows adapters by number, from 1 on.
    return LoRARequest(request.lora, 1 + list(adapters).index(request.lora), adapters[request.lora])


def _structured_outputs(wanted: ResponseFormat | None) -> "StructuredOutputsParams | None":
    from vllm.sampling_params import StructuredOutputsParams

    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutputsParams(json_object=True)
    return StructuredOutputsParams(
        json=wanted.json_schema, regex=wanted.regex, choice=None if wanted.choices is None else list(wanted.choices)
    )
