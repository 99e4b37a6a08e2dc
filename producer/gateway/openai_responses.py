"""From the fleet's answers to OpenAI's, whole and in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.contract import GenerationResult, TokenLogprob, Usage
from producer.stream_reading import ChoiceDelta

FINISH_REASONS: Final = {"length": "length"}
"""Where OpenAI's word is not ``stop``."""


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer begins with."""

    job_id: str
    model: str
    created: int
    """Seconds since the epoch."""
    is_chat: bool

    def fields(self, *, is_chunk: bool) -> dict[str, Any]:
        """As OpenAI has them."""
        kind = "chat.completion.chunk" if is_chunk else "chat.completion"
        return {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.job_id}",
            "object": kind if self.is_chat else "text_completion",
            "created": self.created,
            "model": self.model,
        }


def whole(head: Head, result: GenerationResult) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    choices = []
    for choice in result.choices:
        body: dict[str, Any] = {"index": choice.index, "finish_reason": _finish_reason(choice.finish_reason)}
        if head.is_chat:
            body["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
            body["logprobs"] = _chat_logprobs(choice.logprobs)
        else:
            body["text"] = choice.text
            body["logprobs"] = _completion_logprobs(choice.logprobs, 0)
        choices.append(body)
    return head.fields(is_chunk=False) | {"choices": choices, "usage": usage(result.usage)}


def usage(used: Usage) -> dict[str, Any]:
    """Tokens of one answer."""
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.total_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }


class Chunks:
    """Chunks of one answer, in order; each choice's first has its role, and knows how long its text was before."""

    def __init__(self, head: Head, *, with_usage: bool) -> None:
        self._head = head
        self._with_usage = with_usage
        self._lengths: dict[int, int] = {}
        """Characters that were sent, by choice."""

    def deltas(self, deltas: Sequence[ChoiceDelta]) -> dict[str, Any]:
        """The chunk of these."""
        return self._chunk([self._choice(delta) for delta in deltas])

    def usage(self, used: Usage) -> dict[str, Any]:
        """The last chunk, which has no choices."""
        return self._chunk([]) | {"usage": usage(used)}

    @property
    def has_text(self) -> bool:
        """Whether any was sent."""
        return any(self._lengths.values())

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        # With usage asked for, every chunk has the field, and all but the last have nothing in it.
        return self._head.fields(is_chunk=True) | {"choices": choices} | ({"usage": None} if self._with_usage else {})

    def _choice(self, delta: ChoiceDelta) -> dict[str, Any]:
        before = self._lengths.get(delta.index)
        self._lengths[delta.index] = (before or 0) + len(delta.text)
        body: dict[str, Any] = {"index": delta.index, "finish_reason": _finish_reason(delta.finish_reason)}
        if self._head.is_chat:
            role = {"role": "assistant"} if before is None else {}
            body["delta"] = role | ({"content": delta.text} if delta.text or before is None else {})
            body["logprobs"] = _chat_logprobs(delta.logprobs)
        else:
            body["text"] = delta.text
            body["logprobs"] = _completion_logprobs(delta.logprobs, before or 0)
        return body


def _finish_reason(reason: str | None) -> str | None:
    return None if reason is None else FINISH_REASONS.get(reason, "stop")


def _chat_logprobs(logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    content = [_chat_token(one) | {"top_logprobs": [_chat_token(other) for other in one.top]} for one in logprobs]
    return {"content": content, "refusal": None}


def _chat_token(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode("utf-8", "surrogatepass"))}


def _completion_logprobs(logprobs: Sequence[TokenLogprob] | None, offset: int) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    offsets = []
    for one in logprobs:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [{other.token: other.logprob for other in one.top} for one in logprobs],
        "text_offset": offsets,
    }
