"""From OpenAI's requests to the fleet's."""

from typing import Any, Final

from producer.contract import GenerationRequest, Priority
from producer.gateway.errors import BadParameter
from producer.gateway.openai_requests import (
    CHAT_MAX_TOKENS,
    COMPLETION_MAX_TOKENS,
    MOST_STREAMED_PROMPTS,
    ChatRequest,
    Common,
    CompletionRequest,
    Format,
    Message,
)
from producer.submission import as_request

SAME_NAME: Final = (
    "temperature",
    "top_p",
    "n",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "skip_special_tokens",
    "stop_token_ids",
)


def chat_job(asked: ChatRequest) -> GenerationRequest:
    """The job of a chat.

    Raises:
        BadParameter: two parameters contradict each other.
        InvalidRequest: together they break the contract.
    """
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise BadParameter("max_tokens", "give max_completion_tokens or max_tokens, not both")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise BadParameter("top_logprobs", "top_logprobs needs logprobs = true")
    sampling = _sampling(asked, asked.max_completion_tokens or asked.max_tokens or CHAT_MAX_TOKENS)
    if asked.logprobs:
        sampling["logprobs"] = asked.top_logprobs or 0
    fields: dict[str, Any] = {
        "messages": [_message(message) for message in asked.messages],
        "sampling": sampling,
        "tools": asked.tools,
        "tool_choice": asked.tool_choice,
        "parallel_tool_calls": asked.parallel_tool_calls,
        "prompt_cache_key": asked.prompt_cache_key,
        "conversation_id": asked.conversation_id,
    }
    if asked.response_format is not None:
        fields["response_format"] = _shape(asked.response_format)
    return as_request(_common(asked) | fields | {"metadata": asked.metadata or {}})


def completion_jobs(asked: CompletionRequest) -> list[GenerationRequest]:
    """The jobs of a completion, one for each of its prompts.

    Raises:
        BadParameter: two parameters contradict each other, a prompt is empty, or they are too many.
        InvalidRequest: together they break the contract.
    """
    prompts = asked.prompts
    if asked.stream and len(prompts) > MOST_STREAMED_PROMPTS:
        raise BadParameter(
            "prompt",
            f"prompt: a request that is streamed has at most {MOST_STREAMED_PROMPTS} prompts, and this has "
            f"{len(prompts):,}: send them in several requests, or without stream",
        )
    if len(prompts) > 1 and "" in prompts:
        place = prompts.index("")
        raise BadParameter(f"prompt.{place}", f"prompt.{place}: the prompt is empty")
    sampling = _sampling(asked, asked.max_tokens or COMPLETION_MAX_TOKENS)
    if asked.logprobs is not None:
        sampling["logprobs"] = asked.logprobs
    shared = _common(asked) | {"sampling": sampling}
    if len(prompts) > 1 and asked.priority is None:
        shared["priority"] = Priority.NORMAL
    return [
        as_request(shared | ({"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": prompt}))
        for prompt in prompts
    ]


def _message(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.text,
        "name": message.name,
        "tool_calls": message.tool_calls or None,
        "tool_call_id": message.tool_call_id,
    }


def _common(asked: Common) -> dict[str, Any]:
    if asked.stream_options is not None and not asked.stream:
        raise BadParameter("stream_options", "stream_options needs stream = true")
    return {"model": asked.model, "priority": asked.priority or Priority.INTERACTIVE, "stream": bool(asked.stream)}


def _sampling(asked: Common, max_tokens: int) -> dict[str, Any]:
    given = {name: value for name in SAME_NAME if (value := getattr(asked, name)) is not None}
    if asked.stop is not None:
        given["stop"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    return given | {"max_tokens": max_tokens}


def _shape(wanted: Format) -> dict[str, Any]:
    if wanted.type != "json_schema":
        if wanted.json_schema is not None:
            raise BadParameter(
                "response_format.json_schema",
                f"response_format.json_schema: not with type {wanted.type}; give type json_schema, or leave it out",
            )
        return {"type": wanted.type}
    if wanted.json_schema is None:
        raise BadParameter("response_format", "response_format of type json_schema needs json_schema")
    return {"type": "json_schema", "json_schema": wanted.json_schema.schema_}
