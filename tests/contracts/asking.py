"""Requests for engine tests, and what an engine says to them."""

import itertools
from collections.abc import AsyncGenerator
from typing import Any, Final

from producer.contract import GenerationRequest, SamplingOptions
from workers.engine.base import ChoiceIncrement, Engine, EngineRequest, Increment
from workers.engine.entrance import Patience

ATTEMPTS: Final = itertools.count(1)
GROUP: Final = 2
"""Patient requests that begin together, in the engines that these tests share."""

ENDLESS: Final[dict[str, Any]] = {"max_tokens": 400, "ignore_eos": True, "temperature": 0.0}
"""Sampling options of a job that is still running when a test looks at it."""


def request(prompt: str | None = None, *, asked: dict[str, Any] | None = None, **sampling: Any) -> GenerationRequest:  # noqa: ANN401 - whatever the option takes
    """A request with these sampling options; ``asked`` holds its other fields."""
    fields: dict[str, Any] = {"model": "tiny", "sampling": SamplingOptions(**sampling), **(asked or {})}
    return GenerationRequest(**fields) if prompt is None else GenerationRequest(prompt=prompt, **fields)


def streamed(wanted: GenerationRequest) -> GenerationRequest:
    """The same request, to be answered increment by increment."""
    return wanted.model_copy(update={"stream": True})


def attempt(wanted: GenerationRequest, patience_seconds: float = 0.0) -> EngineRequest:
    """A new attempt at this request."""
    return EngineRequest(f"attempt-{next(ATTEMPTS)}", wanted, patience=Patience(patience_seconds))


def increments(engine: Engine, wanted: GenerationRequest) -> AsyncGenerator[Increment, None]:
    """What a new attempt at this request yields."""
    return engine.generate(attempt(wanted))


async def only(engine: Engine, one: EngineRequest) -> Increment:
    """The one increment of an attempt at a request that does not stream."""
    (increment,) = [increment async for increment in engine.generate(one)]
    return increment


async def whole(engine: Engine, wanted: GenerationRequest) -> Increment:
    """The one increment of a request that does not stream."""
    return await only(engine, attempt(wanted))


async def answer(engine: Engine, wanted: GenerationRequest) -> ChoiceIncrement:
    """The one choice of a request that does not stream."""
    (choice,) = (await whole(engine, wanted)).choices
    return choice
