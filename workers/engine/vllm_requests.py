"""From a job to what vLLM takes: a rendered prompt and sampling parameters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from producer.contract import FailureCode, GenerationRequest, ResponseFormat
from workers.engine.base import RequestRejected

if TYPE_CHECKING:
    from vllm.inputs import EngineInput
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM

NO_CHAT_TEMPLATE: Final = "this model has no chat template, so it can not take messages; send a prompt instead"


async def rendered(llm: "AsyncLLM", request: GenerationRequest) -> "EngineInput":
    """The prompt as tokens, rendered off the loop; messages with the model's own chat template.

    Raises:
        RequestRejected: it does not fit into the context, or the model can not chat.
        Exception: whatever vLLM raises for a prompt that it can not render.
    """
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
    _refuse_longer(_size_tokens(prompt), longest)
    return prompt


def _size_tokens(prompt: Mapping[str, Any]) -> int:
    return len(prompt.get("prompt_token_ids") or ())


def _refuse_longer(size_tokens: int, longest_tokens: int) -> None:
    if size_tokens > longest_tokens:
        raise RequestRejected(
            FailureCode.CONTEXT_LENGTH_EXCEEDED,
            f"the prompt has {size_tokens} tokens; this model takes at most {longest_tokens}, "
            "so that one more fits into its context",
        )


async def _rendered_chat(llm: "AsyncLLM", request: GenerationRequest) -> "EngineInput":
    from vllm.renderers.params import ChatParams

    prompt: EngineInput
    messages: list[Any] = [message.model_dump(exclude_none=True) for message in request.messages or ()]
    try:
        _, (prompt,) = await llm.renderer.render_chat_async(
            [messages], ChatParams(chat_template_kwargs={"add_generation_prompt": True})
        )
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

    options = request.sampling.resolved()
    return SamplingParams(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
        structured_outputs=_structured_outputs(request.response_format),
    )


def _structured_outputs(wanted: ResponseFormat | None) -> "StructuredOutputsParams | None":
    from vllm.sampling_params import StructuredOutputsParams

    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutputsParams(json_object=True)
    return StructuredOutputsParams(
        json=wanted.json_schema, regex=wanted.regex, choice=None if wanted.choices is None else list(wanted.choices)
    )
