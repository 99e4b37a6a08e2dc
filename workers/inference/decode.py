"""Step 1: from untrusted task arguments to a request of the contract."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from producer.answers import SCHEMA_VERSION
from producer.contract import FailureCode, GenerationRequest
from producer.strict import readable
from workers.engine.base import RequestRejected

PREVIOUS: Final = "{{previous}}"
"""Where the text of the preceding task (in a chord: tasks) of a canvas goes; without it the text is appended."""


def decode(arguments: Sequence[Any]) -> GenerationRequest:
    """The request in a task's arguments, with the preceding results of its chain or chord worked in.

    Raises:
        RequestRejected: with ``invalid_request`` and every finding, when the arguments are not the contract's.
    """
    if not isinstance(arguments, Sequence) or isinstance(arguments, str) or len(arguments) not in (1, 2):
        raise _invalid("fleet.generate takes one request object, after at most one preceding result")
    *preceding, last = arguments
    if not isinstance(last, Mapping):
        raise _invalid(f"the request must be an object, not {type(last).__name__}")
    if not preceding and _is_result(last):
        # chain(generate.s(request), generate.s()): the second call has nothing but what the first one answered.
        fields: dict[str, Any] = {"model": last["model"], "prompt": _text_of(last)}
    else:
        fields = dict(last)
        if preceding:
            fields = _with_previous(fields, _text_of(preceding[0]))
    version = fields.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _invalid(
            f"the request is of contract version {min(version, 10**9)}, and this worker understands {SCHEMA_VERSION}: "
            "workers are upgraded before producers (docs/upgrading.md)"
        )
    try:
        request = GenerationRequest.model_validate(fields)
    except ValidationError as error:
        raise _invalid(readable(error)) from error
    if request.conversation_id is not None:
        # Its history is the producer's to add: without it this would be an answer to something else.
        raise _invalid("conversation_id: only a producer's submit honours it; leave it out")
    return request


def _with_previous(fields: dict[str, Any], text: str) -> dict[str, Any]:
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if isinstance(prompt, str):
        return fields | {"prompt": _insert(prompt, text)}
    if isinstance(messages, Sequence) and messages and isinstance(messages[-1], Mapping):
        last = dict(messages[-1])
        last["content"] = _insert(str(last.get("content") or ""), text)
        return fields | {"messages": [*messages[:-1], last]}
    if prompt is None and messages is None and "prompt_token_ids" not in fields:
        return fields | {"prompt": text}
    raise _invalid("a preceding result needs a prompt or messages to go into")


def _insert(template: str, text: str) -> str:
    return template.replace(PREVIOUS, text) if PREVIOUS in template else f"{template}\n\n{text}"


def _text_of(previous: Any) -> str:  # noqa: ANN401 - whatever the preceding task returned
    if isinstance(previous, str):
        return previous
    if _is_result(previous):
        return "\n\n".join(str(choice.get("text", "")) for choice in previous["choices"])
    if isinstance(previous, list):
        return "\n\n".join(_text_of(member) for member in previous)
    raise _invalid("the preceding task returned neither text nor a generation result")


def _is_result(value: Any) -> bool:  # noqa: ANN401 - whatever JSON held
    return isinstance(value, Mapping) and isinstance(value.get("choices"), list) and "model" in value


def _invalid(message: str) -> RequestRejected:
    return RequestRejected(FailureCode.INVALID_REQUEST, message)
