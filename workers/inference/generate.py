"""Step 3: let the engine generate, and gather its increments."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from producer.contract import FailureCode, GenerationRequest, TokenLogprob, ToolCall
from workers.engine.base import Engine, EngineRequest, GenerationFailed, Increment, RequestRejected


@dataclass
class GatheredChoice:
    """One choice, increment by increment."""

    text: str = ""
    token_count: int = 0
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


@dataclass
class Gathered:
    """All that the engine said about one attempt."""

    choices: dict[int, GatheredChoice]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    first_token_seconds: float | None = None

    @property
    def completion_tokens(self) -> int:
        """Over all choices."""
        return sum(choice.token_count for choice in self.choices.values())

    def add(self, increment: Increment) -> None:
        """Take in what is new."""
        self.prompt_tokens = increment.prompt_tokens
        self.cached_tokens = increment.cached_tokens
        if self.first_token_seconds is None:
            self.first_token_seconds = increment.first_token_seconds
        for new in increment.choices:
            choice = self.choices.setdefault(new.index, GatheredChoice())
            choice.text += new.text
            choice.token_count += new.token_count - new.retold_tokens
            choice.finish_reason = new.finish_reason or choice.finish_reason
            choice.tool_calls = new.tool_calls or choice.tool_calls
            if new.logprobs is not None:
                before = choice.logprobs or ()
                choice.logprobs = before[: len(before) - new.retold_tokens] + new.logprobs


async def generate(engine: Engine, attempt: EngineRequest, time_left_seconds: float | None) -> Gathered:
    """Everything that the engine generates for ``attempt``.

    Raises:
        as :func:`generate_into`.
    """
    gathered = Gathered(choices={})
    await generate_into(engine, attempt, time_left_seconds, gathered.add)
    return gathered


async def generate_into(
    engine: Engine, attempt: EngineRequest, time_left_seconds: float | None, add: Callable[[Increment], None]
) -> None:
    """Add everything that the engine generates for ``attempt``.

    Raises:
        RequestRejected: the engine's own reason, or ``expired`` when the deadline passes while it runs.
        EngineError: as :meth:`workers.engine.base.Engine.generate`.
    """
    is_empty = True
    try:
        async with asyncio.timeout(time_left_seconds):
            async for increment in engine.generate(attempt):
                add(increment)
                is_empty = is_empty and not increment.choices
    except TimeoutError:
        raise RequestRejected(
            FailureCode.EXPIRED, f"the deadline {deadline_of(attempt.request)} passed while the job ran"
        ) from None
    if is_empty:
        raise GenerationFailed("the engine ended the request without an output")


def deadline_of(request: GenerationRequest) -> str:
    """The deadline as people read it."""
    return request.deadline.isoformat() if request.deadline else "none"
