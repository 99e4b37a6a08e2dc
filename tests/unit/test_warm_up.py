"""The first job of an engine: long enough to show the size of its tokens, short enough for any context."""

import pytest

from producer.contract import FailureCode
from workers.engine.base import EngineConfig, EngineRequest, RequestRejected
from workers.engine.simulated import SimulatedEngine
from workers.engine.warm_up import PARAGRAPH, WARM_UP_TOKENS, shortened, warm_up

AVERAGE_WORD_BYTES = (3.0, 7.0)
"""The simulated engine's tokens are words; with the space behind them."""


class Noting(SimulatedEngine):
    """Remembers what it was asked for."""

    def __init__(self, max_model_len: int) -> None:
        super().__init__(EngineConfig("none", "m", {"max_model_len": max_model_len}))
        self.asked: list[EngineRequest] = []

    def generate(self, attempt: EngineRequest):  # noqa: ANN201 - as its parent's
        """Note it."""
        self.asked.append(attempt)
        return super().generate(attempt)


@pytest.mark.parametrize("max_model_len", [2_048, 64, 32])
async def test_the_warm_up_tells_how_many_bytes_a_token_has(max_model_len: int) -> None:
    """From ordinary words, cut to what the context surely takes beside the answer."""
    engine = Noting(max_model_len)
    await engine.start()
    assert AVERAGE_WORD_BYTES[0] <= await warm_up(engine, "m") <= AVERAGE_WORD_BYTES[1]
    [only] = engine.asked
    assert only.request.sampling.max_tokens == WARM_UP_TOKENS
    assert PARAGRAPH.startswith(only.request.prompt or "nothing")
    assert len(only.request.prompt or "") <= max_model_len - WARM_UP_TOKENS
    await engine.close()


class Narrow(Noting):
    """Its tokenizer makes more tokens than the text has bytes, as one does that adds some of its own."""

    def generate(self, attempt: EngineRequest):  # noqa: ANN201 - as its parent's
        """Refuse more than ten characters."""
        if len(attempt.request.prompt or "") > 10:
            self.asked.append(attempt)
            raise RequestRejected(FailureCode.CONTEXT_LENGTH_EXCEEDED, "too long")
        return super().generate(attempt)


async def test_a_prompt_that_is_still_too_long_is_halved_until_it_fits() -> None:
    """What a tokenizer adds is not known before."""
    engine = Narrow(64)
    await engine.start()
    await warm_up(engine, "m")
    lengths = [len(asked.request.prompt or "") for asked in engine.asked]
    assert len(lengths) > 1
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] <= 10
    await engine.close()


async def test_an_engine_that_refuses_a_single_word_does_not_start() -> None:
    """A context of one token has room for no answer."""
    engine = Noting(1)
    await engine.start()
    with pytest.raises(RequestRejected):
        await warm_up(engine, "m")
    await engine.close()


@pytest.mark.parametrize(
    ("length", "expected"),
    [(100, "one two three"), (13, "one two three"), (12, "one two"), (7, "one two"), (3, "one"), (-5, "one")],
)
def test_a_text_is_shortened_at_a_word(length: int, expected: str) -> None:
    """The first word stays in any case."""
    assert shortened("one two three", length) == expected


def test_the_paragraph_is_of_ordinary_length() -> None:
    """Long enough for an average, short enough for any usual context."""
    assert 400 <= len(PARAGRAPH.encode()) <= 600
