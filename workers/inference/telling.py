"""Step 3 for a streamed job: tell what the engine says while it says it, going on where an earlier attempt ended."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from producer.contract import GenerationRequest
from producer.stream_entries import Piece, Said
from workers.engine.base import Begun, CannotContinue, Engine, EngineRequest, Increment
from workers.inference.generate import Gathered, GatheredChoice, generate_into

OUTPUT_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
"""They count the tokens of the output: those that were told would not be among them any more."""


class Teller(Protocol):
    """What readers of one delivery's job are told; of one event loop."""

    async def said(self) -> Said:
        """What earlier attempts have told; comes back only when that is known."""

    def tell(self, pieces: Sequence[Piece], prompt_tokens: int) -> None:
        """Tell these of a prompt of that size; returns at once."""

    def restart(self) -> None:
        """What was told before is void; returns at once."""

    def close(self) -> None:
        """The attempt is over; what was not told yet is in its result, if it has one."""


async def generate_telling(
    engine: Engine, attempt: EngineRequest, telling: "Telling", time_left_seconds: float | None
) -> Gathered:
    """Everything that was generated for this job, here and by earlier attempts.

    Raises:
        as :func:`workers.inference.generate.generate_into`.
    """
    wanted = attempt.request.sampling.resolved().get("n", 1)
    if telling.is_whole(wanted):
        return telling.gathered  # everything was told, and only the result is missing
    if may_go_on(attempt.request):
        attempt = replace(attempt, begun=telling.begun)
    if attempt.begun is None:
        telling.restart()
    try:
        await generate_into(engine, attempt, time_left_seconds, telling.add)
    except CannotContinue:
        telling.restart()
        await generate_into(engine, replace(attempt, begun=None), time_left_seconds, telling.add)
    return telling.gathered


def may_go_on(request: GenerationRequest) -> bool:
    """Whether a prompt that ends with what was told gives what one attempt would have given.

    Not with several choices, not where a grammar or a count of the output's tokens begins anew with each attempt. A
    sampled text may go on: its next token depends on the text before it, and on no other draw.
    """
    options: dict[str, Any] = request.sampling.resolved()
    shape = request.response_format
    return (
        options.get("n", 1) == 1
        and (shape is None or shape.type == "text")
        and not any(options.get(name) for name in OUTPUT_PENALTIES)
    )


class Telling:
    """Gathers what the engine says, and tells it; begins with what earlier attempts have said."""

    def __init__(self, teller: Teller, said: Said) -> None:
        self._teller = teller
        self._said = said
        self.gathered = _gathered(said)

    def is_whole(self, choices: int) -> bool:
        """Whether so many choices were told to their ends."""
        told = self.gathered.choices.values()
        return len(told) == choices and all(choice.finish_reason for choice in told)

    @property
    def begun(self) -> Begun | None:
        """How far the one choice was told; None where it was not, or not all of it is known."""
        choice = self._said.choices.get(0)
        return None if choice is None or self._said.has_gap else Begun(tuple(choice.token_ids), choice.text)

    def add(self, increment: Increment) -> None:
        """Take in what is new, and tell it."""
        pieces = []
        for new in increment.choices:
            before = self.gathered.choices.get(new.index, GatheredChoice())
            at = (len(before.text), new.text, before.token_count - new.retold_tokens, new.token_ids)
            if new.text or new.token_ids or new.finish_reason:
                pieces.append(Piece(new.index, *at, new.finish_reason, new.logprobs, new.tool_calls))
        self.gathered.add(increment)
        self._teller.tell(pieces, increment.prompt_tokens)

    def restart(self) -> None:
        """Begin anew; readers hear of it if there is something to forget."""
        if self._said.choices:
            self._teller.restart()
        self.gathered = Gathered(choices={})


def _gathered(said: Said) -> Gathered:
    return Gathered(
        {
            index: GatheredChoice(
                choice.text,
                len(choice.token_ids),
                choice.finish_reason,
                None if choice.logprobs is None else tuple(choice.logprobs),
                choice.tool_calls,
            )
            for index, choice in said.choices.items()
        },
        prompt_tokens=said.prompt_tokens,
    )
