"""From the fleet's answers to OpenAI's, whole and in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.contract import GenerationResult, TokenLogprob, Usage
from producer.stream_reading import ChoiceDelta

DONE: Final = b"data: [DONE]\n\n"
"""The last of a stream."""
RESTARTED: Final = "the worker died, and the answer can not go on where it ended: send the request again"
FINISH_REASONS: Final = {"length": "length", "tool_calls": "tool_calls"}
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


def whole(head: Head, *results: GenerationResult) -> dict[str, Any]:
    """The answer to a request that does not stream; of several prompts, the choices of one after those of the other."""
    choices: list[dict[str, Any]] = []
    for choice in (choice for result in results for choice in result.choices):
        body: dict[str, Any] = {"index": len(choices), "finish_reason": finish_reason(choice.finish_reason)}
        if head.is_chat:
            calls = (
                {} if choice.tool_calls is None else {"tool_calls": [call.model_dump() for call in choice.tool_calls]}
            )
            # OpenAI says null, and not "", where there are calls and nothing else.
            content = (choice.text or None) if calls else choice.text
            body["message"] = {"role": "assistant", "content": content, "refusal": None} | calls
            body["logprobs"] = _chat_logprobs(choice.logprobs)
        else:
            body["text"] = choice.text
            body["logprobs"] = _completion_logprobs(choice.logprobs, 0)
        choices.append(body)
    return head.fields(is_chunk=False) | {"choices": choices, "usage": usage(*(result.usage for result in results))}


def usage(*used: Usage) -> dict[str, Any]:
    """Tokens of one answer, over all its prompts."""
    return {
        "prompt_tokens": sum(one.prompt_tokens for one in used),
        "completion_tokens": sum(one.completion_tokens for one in used),
        "total_tokens": sum(one.total_tokens for one in used),
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in used)},
    }


class Chunks:
    """Chunks of one answer, in order; each choice's first has its role, and knows how long its text was before.

    Where several prompts are answered together, ``first_index`` is that of this one's first choice among all.
    """

    def __init__(self, head: Head, *, with_usage: bool, first_index: int = 0) -> None:
        self._head = head
        self.with_usage = with_usage
        self._first_index = first_index
        self._lengths: dict[int, int] = {}
        """Characters that were sent, by choice."""
        self._has_calls = False

    def deltas(self, deltas: Sequence[ChoiceDelta]) -> dict[str, Any]:
        """The chunk of these."""
        return self._chunk([self._choice(delta) for delta in deltas])

    def usage(self, *used: Usage) -> dict[str, Any]:
        """The last chunk, which has no choices."""
        return self._chunk([]) | {"usage": usage(*used)}

    @property
    def has_said(self) -> bool:
        """Whether any text or call was sent."""
        return self._has_calls or any(self._lengths.values())

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        # With usage asked for, every chunk has the field, and all but the last have nothing in it.
        return self._head.fields(is_chunk=True) | {"choices": choices} | ({"usage": None} if self.with_usage else {})

    def _choice(self, delta: ChoiceDelta) -> dict[str, Any]:
        before = self._lengths.get(delta.index)
        self._lengths[delta.index] = (before or 0) + len(delta.text)
        index = self._first_index + delta.index
        body: dict[str, Any] = {"index": index, "finish_reason": finish_reason(delta.finish_reason)}
        if self._head.is_chat:
            role = {"role": "assistant"} if before is None else {}
            content = {"content": delta.text} if delta.text or (before is None and delta.tool_calls is None) else {}
            body["delta"] = role | content | self._calls(delta)
            body["logprobs"] = _chat_logprobs(delta.logprobs)
        else:
            body["text"] = delta.text
            body["logprobs"] = _completion_logprobs(delta.logprobs, before or 0)
        return body

    def _calls(self, delta: ChoiceDelta) -> dict[str, Any]:
        """Each whole, in one piece."""
        if delta.tool_calls is None:
            return {}
        self._has_calls = True
        return {"tool_calls": [{"index": at, **call.model_dump()} for at, call in enumerate(delta.tool_calls)]}


def finish_reason(reason: str | None) -> str | None:
    """OpenAI's word for why a choice ended; None while it has not."""
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
        "top_logprobs": [_with_drawn(one) for one in logprobs],
        "text_offset": offsets,
    }


def _with_drawn(one: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens by their text, and always the drawn one: a completion's may be one more than asked for."""
    likeliest: dict[str, float] = {}
    for other in one.top:
        likeliest.setdefault(other.token, other.logprob)  # two tokens may have one text; the first is the likelier
    return likeliest | {one.token: one.logprob}
