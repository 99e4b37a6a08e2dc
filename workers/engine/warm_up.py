"""The first job of an engine: it finds whatever is compiled late, and shows how long this model's tokens are."""

from typing import Final

from producer.contract import FailureCode, GenerationRequest, SamplingOptions
from workers.engine.base import Engine, EngineRequest, RequestRejected

WARM_UP_TOKENS: Final = 8
"""Tokens that it generates, where the context has room for them."""
PARAGRAPH: Final = (
    "A harbour at six in the morning is never quiet. The ferries leave first, then the fishing boats come back, and "
    "between them a pilot takes a freighter past the breakwater. On the quay somebody counts crates, somebody else "
    "argues about 40 missing ones, and a radio says that the wind will turn after noon. By eight the market is open: "
    "there is bread, there are oranges from the south, and whoever comes late pays more for what is left. Nobody here "
    "hurries, but nobody waits either."
)
"""Ordinary English, so that its bytes per token are those of ordinary jobs."""


async def warm_up(engine: Engine, model: str) -> float:
    """Serve one greedy job; UTF-8 bytes of its prompt per token.

    Raises:
        EngineError: the engine refused even a single word, or broke.
    """
    # A token has a byte at least, so what is left of the context after the answer surely fits, but for what the
    # tokenizer adds.
    room_tokens = engine.capacity().max_model_len - WARM_UP_TOKENS
    prompt = shortened(PARAGRAPH, room_tokens)
    while True:
        try:
            return len(prompt.encode()) / max(1, await _prompt_tokens(engine, model, prompt))
        except RequestRejected as error:
            if error.code is not FailureCode.CONTEXT_LENGTH_EXCEEDED or " " not in prompt:
                raise
            prompt = shortened(prompt, len(prompt) // 2)


def shortened(text: str, length: int) -> str:
    """The first words of ``text`` that fit into ``length`` characters; the first word in any case."""
    if len(text) <= length:
        return text
    return text[: max(length, 0) + 1].rpartition(" ")[0] or text.partition(" ")[0]


async def _prompt_tokens(engine: Engine, model: str, prompt: str) -> int:
    request = GenerationRequest(
        model=model, prompt=prompt, sampling=SamplingOptions(max_tokens=WARM_UP_TOKENS, temperature=0.0)
    )
    tokens = 0
    async for increment in engine.generate(EngineRequest("warm-up", request)):
        tokens = increment.prompt_tokens
    return tokens
