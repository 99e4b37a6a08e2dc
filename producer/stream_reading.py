"""From a job's stream entries and its result to what a caller is told: nothing twice, nothing lost, nothing mixed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from producer.contract import GenerationResult, TokenLogprob, ToolCall
from producer.errors import InvalidRequest
from producer.stream_entries import RESTARTED, Piece, Said, SaidChoice

POSITION: Final = re.compile(r"(\d{1,6})-(\d{1,12}(?:\.\d{1,12})*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """What is new of one choice."""

    index: int
    text: str
    finish_reason: str | None = None
    """Set in its last delta."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    """In its last delta, whole."""


@dataclass(frozen=True, slots=True)
class StreamDelta:
    """More of the answer."""

    position: str
    """Where the caller is now; give it back to go on from here."""
    choices: tuple[ChoiceDelta, ...]


@dataclass(frozen=True, slots=True)
class StreamRestarted:
    """The worker died, and the next attempt began anew: forget all text so far."""

    position: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The job is answered; every delta has come before."""

    position: str
    result: GenerationResult


StreamEvent = StreamDelta | StreamRestarted | StreamEnded


class StreamReading:
    """One caller's way through one job's answer.

    ``after`` is the position of the last event that the caller has; empty: from the beginning.

    Raises:
        InvalidRequest: that is no position.
    """

    def __init__(self, after: str = "") -> None:
        self._said = Said()
        self._after_restarts, self._seen_characters = _parsed(after)
        self._is_resuming = bool(after)
        self._has_told = False

    def entries(self, entries: Sequence[bytes]) -> Iterator[StreamEvent]:
        """What the next entries tell; the first are to be all that are stored.

        Who has no text yet hears nothing of attempts that were given up: there is nothing to forget.
        """
        void_count = 0 if self._is_resuming or self._has_told else _void_count(entries)
        for number, entry in enumerate(entries):
            pieces = self._said.take(entry)
            if number < void_count:
                continue
            if pieces is None:
                yield from self._restarted()
            else:
                yield from self._told(pieces)

    def end(self, result: GenerationResult) -> Iterator[StreamEvent]:
        """What the result tells beyond the entries, and the end."""
        texts = {choice.index: choice.text for choice in result.choices}
        is_continued = all(texts.get(index, "").startswith(said.text) for index, said in self._said.choices.items())
        is_kept = self._said.choices or not self._is_resuming or self._said.restarts
        if not is_continued or not is_kept:
            # Its entries are gone, or were never seen: the result alone says what the answer is.
            self._said.choices.clear()
            self._said.restarts = max(self._said.restarts, self._after_restarts) + 1
            yield from self._restarted()
        yield from self._told(list(self._left(result)))
        yield StreamEnded(self.position, result)

    def _left(self, result: GenerationResult) -> Iterator[Piece]:
        for choice in result.choices:
            said = self._said.choices.setdefault(choice.index, SaidChoice())
            text = choice.text[len(said.text) :]
            logprobs = None if choice.logprobs is None else choice.logprobs[len(said.logprobs or ()) :]
            if text or said.finish_reason is None:
                at = (choice.index, len(said.text), text, 0, ())
                yield Piece(*at, choice.finish_reason, logprobs, choice.tool_calls)
            said.text, said.finish_reason = choice.text, choice.finish_reason

    @property
    def position(self) -> str:
        """Where this caller is."""
        choices = self._said.choices
        lengths = [len(choices[at].text) if at in choices else 0 for at in range(max(choices, default=0) + 1)]
        return f"{self._said.restarts}-{'.'.join(map(str, lengths))}"

    def _restarted(self) -> Iterator[StreamEvent]:
        if self._said.restarts > self._after_restarts:
            yield StreamRestarted(self.position)

    def _told(self, pieces: list[Piece]) -> Iterator[StreamEvent]:
        deltas = [
            ChoiceDelta(piece.index, piece.text, piece.finish_reason, piece.logprobs, piece.tool_calls)
            for piece in map(self._unseen, pieces)
            if piece is not None
        ]
        if deltas:
            self._has_told = True
            yield StreamDelta(self.position, tuple(deltas))

    def _unseen(self, piece: Piece) -> Piece | None:
        """What the caller does not have of it."""
        if self._said.restarts > self._after_restarts:
            return piece
        if self._said.restarts < self._after_restarts:
            return None
        seen = self._seen_characters.get(piece.index, 0) - piece.at_characters
        if seen <= 0:
            return piece
        is_all_seen = seen >= len(piece.text) and piece.finish_reason is None
        return None if is_all_seen else replace(piece, text=piece.text[seen:])


def _void_count(entries: Sequence[bytes]) -> int:
    """How many of them come before the last attempt's first."""
    return max((number + 1 for number, entry in enumerate(entries) if entry == RESTARTED), default=0)


def _parsed(position: str) -> tuple[int, dict[int, int]]:
    if not position:
        return 0, {}
    found = POSITION.fullmatch(position)
    if found is None:
        raise InvalidRequest(f"no position of a stream: {position!r}; give back what an event of it said, or nothing")
    return int(found[1]), dict(enumerate(map(int, found[2].split("."))))
