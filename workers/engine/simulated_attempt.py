"""One attempt on its way through the simulated engine, and the slots that it waits for."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TextIO

from producer.contract import GenerationRequest
from workers.engine.base import Begun, CannotContinue, ChoiceIncrement, Increment
from workers.engine.simulated_text import Written


@dataclass(eq=False)
class Attempt:
    """What is written for one attempt, and how far it has come."""

    request: GenerationRequest
    prompt_size_tokens: int
    choices: list[Written]
    arrived: float = field(default_factory=time.monotonic)
    tokens_before: int = 0
    """Of its one choice, those that another attempt has told."""
    first_token_seconds: float | None = None
    slot_given_at: float | None = None
    """When it got a slot, in seconds since the epoch."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has a slot, and when it will not need one."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is to end early."""

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest choice."""
        return max(len(choice.pieces) for choice in self.choices)

    def go_on(self, begun: Begun) -> None:
        """Write from there.

        Raises:
            CannotContinue: another text was begun.
        """
        count, choice = len(begun.token_ids), self.choices[0]
        if choice.token_ids[:count] != begun.token_ids or "".join(choice.pieces[:count]) != begun.text:
            raise CannotContinue("the simulated engine writes something else than what was told")
        self.tokens_before = count

    def stop(self) -> None:
        """End it early, wherever it is."""
        self.stopped.set()
        self.turn.set()

    async def wait(self, seconds: float | None) -> None:
        """Let ``seconds`` pass (None: no end), or less when it is stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopped.wait()
        except TimeoutError:
            return

    def increment(self, start: int, end: int, *, is_last: bool) -> Increment:
        """Tokens ``start`` to ``end`` of every choice that has some; what the last one leaves open was aborted."""
        news = []
        for index, choice in enumerate(self.choices):
            pieces = choice.pieces[start:end]
            is_cut = is_last and len(choice.pieces) > end
            was_whole = is_last and start >= len(choice.pieces) == self.tokens_before
            if not pieces and not is_cut and not was_whole:
                continue
            ends_here = len(choice.pieces) <= end
            news.append(
                ChoiceIncrement(
                    index=index,
                    text="".join(pieces),
                    token_count=len(pieces),
                    finish_reason=choice.finish_reason if ends_here else "abort" if is_cut else None,
                    logprobs=None if choice.logprobs is None else choice.logprobs[start:end],
                    token_ids=choice.token_ids[start:end] if self.request.stream else (),
                )
            )
        return Increment(tuple(news), self.prompt_size_tokens, first_token_seconds=self.first_token_seconds)


class Slots:
    """As many attempts as there are slots run together; the rest waits in order of arrival."""

    def __init__(self, count: int, log: TextIO | None = None) -> None:
        self._free = count
        self._waiting: deque[Attempt] = deque()
        self._log = log

    def enter(self, attempt: Attempt) -> None:
        """Give it a slot, or a place in the line."""
        if self._free:
            self._free -= 1
            self._give(attempt)
        else:
            self._waiting.append(attempt)

    @staticmethod
    def _give(attempt: Attempt) -> None:
        attempt.slot_given_at = time.time()
        attempt.turn.set()

    def leave(self, attempt: Attempt) -> None:
        """Take it out; its slot goes to the first in the line."""
        if attempt.slot_given_at is None:
            self._waiting.remove(attempt)
            return
        if self._log is not None:
            self._log.write(f"{attempt.slot_given_at:.6f} {time.time():.6f}\n")
        if self._waiting:
            self._give(self._waiting.popleft())
        else:
            self._free += 1

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
            self._log = None
