"""What a streamed job has said so far: the entries of its Redis stream, and what they come to.

Attempts write entries while they generate, in micro-batches; callers read them, and so does the next attempt when the
worker of the last one has died. Each entry has one field, ``d``, which is JSON: the prompt's tokens and what is new of
each choice, with the characters and tokens that were there before; or ``{"restarted": true}``, and all that was said
before is void. An entry that was written twice (its writer did not hear the reply) changes nothing, and one that is
missing is noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from producer.contract import TokenLogprob, ToolCall

FIELD: Final = "d"
"""The one field of an entry."""
RESTARTED: Final = b'{"restarted":true}'
"""The entry of an attempt that could not go on where the last one ended."""


FIRST_ID: Final = "0-0"
"""What comes before every entry's id."""
MOST_ENTRIES: Final = 256
"""Of one stream in one reply."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of one choice."""

    index: int
    at_characters: int
    """Characters of this choice that came before."""
    text: str
    at_tokens: int
    """Tokens of this choice that came before."""
    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    """With the finish reason: calls are told whole."""


def encode(pieces: Sequence[Piece], prompt_tokens: int) -> bytes:
    """One entry of these."""
    return orjson.dumps({"prompt_tokens": prompt_tokens, "choices": [_fields(piece) for piece in pieces]})


def _fields(piece: Piece) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "index": piece.index,
        "at_characters": piece.at_characters,
        "text": piece.text,
        "at_tokens": piece.at_tokens,
        "token_ids": piece.token_ids,
    }
    if piece.finish_reason is not None:
        fields["finish_reason"] = piece.finish_reason
    if piece.logprobs is not None:
        fields["logprobs"] = [logprob.model_dump() for logprob in piece.logprobs]
    if piece.tool_calls is not None:
        fields["tool_calls"] = [call.model_dump() for call in piece.tool_calls]
    return fields


def _decoded(fields: dict[str, Any]) -> Piece:
    logprobs, calls = fields.get("logprobs"), fields.get("tool_calls")
    return Piece(
        index=fields["index"],
        at_characters=fields["at_characters"],
        text=fields["text"],
        at_tokens=fields["at_tokens"],
        token_ids=tuple(fields["token_ids"]),
        finish_reason=fields.get("finish_reason"),
        logprobs=None if logprobs is None else tuple(map(TokenLogprob.model_validate, logprobs)),
        tool_calls=None if calls is None else tuple(map(ToolCall.model_validate, calls)),
    )


def read_said(reply: Any, after: str) -> tuple[str, list[bytes]]:  # noqa: ANN401 - the library's hints have a gap
    """The last id and the entries in XREAD's reply about one stream; ``after`` and none where there is nothing new."""
    found = [entry for _, entries in reply or () for entry in entries]
    return (found[-1][0].decode() if found else after), [fields[FIELD.encode()] for _, fields in found]


def _without(piece: Piece, tokens: int, characters: int) -> Piece:
    """What is left of a piece of which so much is known: its writer sent it again together with what came later."""
    return replace(
        piece,
        at_characters=piece.at_characters + characters,
        text=piece.text[characters:],
        at_tokens=piece.at_tokens + tokens,
        token_ids=piece.token_ids[tokens:],
        logprobs=None if piece.logprobs is None else piece.logprobs[tokens:],
    )


@dataclass(slots=True)
class SaidChoice:
    """One choice, as far as it was said."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


@dataclass(slots=True)
class Said:
    """What the entries that were taken come to."""

    choices: dict[int, SaidChoice] = field(default_factory=dict)
    """By index."""
    prompt_tokens: int = 0
    restarts: int = 0
    """How often what was said before became void."""
    has_gap: bool = False
    """An entry is missing (the stream was cut to its greatest length): what came after it was not taken."""

    def take(self, entry: bytes) -> list[Piece] | None:
        """What is new in the next entry; None where everything said before is void from now on."""
        decoded = orjson.loads(entry)
        if decoded.get("restarted"):
            self.choices.clear()
            self.restarts += 1
            self.has_gap = False
            return None
        self.prompt_tokens = decoded["prompt_tokens"]
        return [piece for fields in decoded["choices"] if (piece := self._taken(_decoded(fields))) is not None]

    def _taken(self, piece: Piece) -> Piece | None:
        choice = self.choices.setdefault(piece.index, SaidChoice())
        if piece.at_tokens > len(choice.token_ids) or piece.at_characters > len(choice.text):
            self.has_gap = True
        if self.has_gap or choice.finish_reason is not None:
            return None
        known_tokens, known_characters = len(choice.token_ids) - piece.at_tokens, len(choice.text) - piece.at_characters
        if known_tokens or known_characters:
            piece = _without(piece, known_tokens, known_characters)
            if not piece.text and not piece.token_ids and piece.finish_reason is None:
                return None
        choice.text += piece.text
        choice.token_ids += piece.token_ids
        choice.finish_reason = piece.finish_reason
        choice.tool_calls = piece.tool_calls
        if piece.logprobs is not None:
            choice.logprobs = (choice.logprobs or []) + list(piece.logprobs)
        return piece
