"""From OpenAI's requests to the fleet's."""

from typing import Any, Final

from producer.contract import GenerationRequest
from producer.gateway.errors import BadParameter
from producer.gateway.openai_requests import (
    CHAT_MAX_TOKENS,
    COMPLETION_MAX_TOKENS,
    ChatRequest,
    Common,
    CompletionRequest,
    Format,
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
    messages = [
        {"role": message.role, "content": message.text} | ({"name": message.name} if message.name else {})
        for message in asked.messages
    ]
    fields: dict[str, Any] = {"messages": messages, "sampling": sampling, "prompt_cache_key": asked.prompt_cache_key}
    if asked.response_format is not None:
        fields["response_format"] = _shape(asked.response_format)
    return as_request(_common(asked) | fields | {"metadata": asked.metadata or {}})


def completion_job(asked: CompletionRequest) -> GenerationRequest:
    """The job of a completion.

    Raises:
        BadParameter: two parameters contradict each other.
        InvalidRequest: together they break the contract.
    """
    sampling = _sampling(asked, asked.max_tokens or COMPLETION_MAX_TOKENS)
    if asked.logprobs is not None:
        sampling["logprobs"] = asked.logprobs
    prompt: Any = asked.prompt
    if isinstance(prompt, list) and isinstance(prompt[0], str):
        prompt = prompt[0]
    given = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": prompt}
    return as_request(_common(asked) | given | {"sampling": sampling})


def _common(asked: Common) -> dict[str, Any]:
    if asked.stream_options is not None and not asked.stream:
        raise BadParameter("stream_options", "stream_options needs stream = true")
    return {"model": asked.model, "priority": asked.priority, "stream": bool(asked.stream)}


def _sampling(asked: Common, max_tokens: int) -> dict[str, Any]:
    given = {name: value for name in SAME_NAME if (value := getattr(asked, name)) is not None}
    if asked.stop is not None:
        given["stop"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    return given | {"max_tokens": max_tokens}


def _shape(wanted: Format) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.json_schema is None:
        raise BadParameter("response_format", "response_format of type json_schema needs json_schema")
    return {"type": "json_schema", "json_schema": wanted.json_schema.schema_}
