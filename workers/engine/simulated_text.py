"""What the simulated engine writes: words that follow from the prompt and the sampling options, and nothing else."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from producer.contract import FailureCode, GenerationRequest, TokenLogprob
from workers.engine.base import RequestRejected

VOCABULARY_TOKENS: Final = 32_000
"""Token ids of a prompt must be below this."""

WORD_LIST: Final = (
    "and as at be but by day do down end few for free from good hand has have he here how if in is it job just last "
    "line long make may more much name new no not now of on one or our out over queue so some task than that the then "
    "time to up use was we well what when who will with work you"
)
WORDS: Final = tuple(WORD_LIST.split())
"""What a token can say; a token's id is its place here."""

FEW: Final = 6
PIECE_CHARACTERS: Final = 4
"""What a token says of a text that is no words."""

ENDS_OF_256: Final = 4
"""Of 256 drawn tokens after the first, how many end the text."""

SHAPE_ONLY: Final = frozenset(
    {"max_tokens", "min_tokens", "stop", "stop_token_ids", "n", "logprobs", "ignore_eos", "skip_special_tokens"}
)
"""Options that cut or describe the text; the others change which words are drawn."""


@dataclass(frozen=True, slots=True)
class Written:
    """One choice, written to its end."""

    pieces: tuple[str, ...]
    """The text, one piece per token; a piece that a stop string cut off is shorter than its token, or empty."""
    token_ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] | None

    @property
    def first_words(self) -> str:
        """A few."""
        return "".join(self.pieces[:FEW])


def prompt_tokens(request: GenerationRequest) -> tuple[str, ...]:
    """The prompt's tokens: its words, or its token ids.

    Raises:
        RequestRejected: a token id is not in the vocabulary.
    """
    if request.prompt_token_ids is not None:
        if (largest := max(request.prompt_token_ids)) >= VOCABULARY_TOKENS:
            raise RequestRejected(FailureCode.INVALID_REQUEST, f"token id {largest} is out of vocabulary")
        return tuple(str(token_id) for token_id in request.prompt_token_ids)
    if request.messages is not None:
        shown = [tool.function.name for tool in request.tools or ()]
        said = (word for one in request.messages for word in (one.role, *" ".join(one.texts).split()))
        return (*shown, *said)
    return tuple((request.prompt or "").split()) or ("",)


def refuse_contradictions(sampling: dict[str, Any]) -> None:
    """Refuse resolved options that vLLM refuses too.

    Raises:
        RequestRejected: two options contradict each other.
    """
    if sampling.get("min_tokens", 0) > sampling["max_tokens"]:
        raise RequestRejected(FailureCode.INVALID_REQUEST, "min_tokens must not be above max_tokens")
    if sampling.get("temperature") == 0 and sampling.get("n", 1) > 1:
        raise RequestRejected(FailureCode.INVALID_REQUEST, "n must be 1 when temperature is 0: all would be the same")


def write(prompt: tuple[str, ...], sampling: dict[str, Any], room_tokens: int) -> list[Written]:
    """All choices for ``prompt``; ``sampling`` holds resolved options, ``room_tokens`` is what the context has left."""
    return [_choice(prompt, sampling, index, room_tokens) for index in range(sampling.get("n", 1))]


def _choice(prompt: tuple[str, ...], sampling: dict[str, Any], index: int, room_tokens: int) -> Written:
    limit = min(sampling["max_tokens"], room_tokens)
    stops = sampling.get("stop", ())
    drawn: list[int] = []
    text = ""
    finish_reason = "length"
    for token in _tokens(_key(prompt, sampling, index), sampling):
        drawn.append(token)
        text += _piece(token, first=len(drawn) == 1)
        if token in sampling.get("stop_token_ids", ()) or any(stop in text for stop in stops):
            finish_reason = "stop"
            break
        if len(drawn) == limit:
            break
    else:
        finish_reason = "stop"
    kept = min((text.index(stop) for stop in stops if stop in text), default=len(text))
    return Written(_cut(drawn, text[:kept]), tuple(drawn), finish_reason, _logprobs(drawn, sampling.get("logprobs")))


def spelled(text: str, sampling: dict[str, Any], room_tokens: int) -> Written:
    """One choice that is this text, as far as there is room."""
    limit = min(sampling["max_tokens"], room_tokens)
    pieces = tuple(text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS))
    token_ids = tuple(zlib.crc32(piece.encode()) % len(WORDS) for piece in pieces[:limit])
    finish_reason = "stop" if len(pieces) <= limit else "length"
    return Written(pieces[:limit], token_ids, finish_reason, _logprobs(list(token_ids), sampling.get("logprobs")))


def _key(prompt: tuple[str, ...], sampling: dict[str, Any], index: int) -> bytes:
    drawing = {name: value for name, value in sampling.items() if name not in SHAPE_ONLY}
    if sampling.get("temperature") == 0:
        drawing = {}  # greedy: nothing is drawn, so nothing else matters
    return hashlib.sha256(repr((prompt, sorted(drawing.items()), index)).encode("utf-8", "surrogatepass")).digest()


def _tokens(key: bytes, sampling: dict[str, Any]) -> Iterator[int]:
    # Ends where an end of text is drawn.
    count = 0
    while True:
        block = hashlib.sha256(key + count.to_bytes(8, "big")).digest()
        may_end = count > 0 and count >= sampling.get("min_tokens", 0) and not sampling.get("ignore_eos", False)
        if may_end and block[1] < ENDS_OF_256:
            return
        yield block[0] % len(WORDS)
        count += 1


def _piece(token: int, *, first: bool) -> str:
    return WORDS[token] if first else f" {WORDS[token]}"


def _cut(drawn: list[int], text: str) -> tuple[str, ...]:
    pieces = []
    at = 0
    for position, token in enumerate(drawn):
        end = at + len(_piece(token, first=position == 0))
        pieces.append(text[at:end])
        at = end
    return tuple(pieces)


def _logprobs(drawn: list[int], alternatives: int | None) -> tuple[TokenLogprob, ...] | None:
    if alternatives is None:
        return None
    return tuple(
        _logprob(token, 0).model_copy(
            update={"top": tuple(_logprob((token + rank) % len(WORDS), rank) for rank in range(alternatives))}
        )
        for token in drawn
    )


def _logprob(token: int, rank: int) -> TokenLogprob:
    return TokenLogprob(token=f" {WORDS[token]}", token_id=token, logprob=-0.5 * (rank + 1))
