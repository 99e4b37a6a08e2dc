"""The contract's answers: what comes back of a job that was answered."""

from typing import Final, Literal

from pydantic import Field

from producer.strict import WireModel
from producer.tools import ToolCall

SCHEMA_VERSION: Final = 1
"""Of requests and answers; it changes when an old reader would misread."""


class TokenLogprob(WireModel):
    """One drawn token with its log probability and the likeliest alternatives."""

    token: str
    token_id: int
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


class Choice(WireModel):
    """One of the ``n`` texts of a job."""

    index: int
    text: str
    token_count: int
    finish_reason: Literal["stop", "length", "abort", "error", "repetition", "tool_calls"] | None
    """vLLM's word for why the text ended; ``length`` is ``max_tokens`` or the end of the context; ``tool_calls``: it
    stopped to wait for their answers, and nobody had named the function to call (OpenAI and vLLM say ``stop`` then)."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    """What the model asks for; how it was written is no part of ``text``."""


class Usage(WireModel):
    """Tokens of one job, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose KV cache was already there."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timings(WireModel):
    """Where a job's time went, in seconds; by the worker's clock unless said otherwise."""

    queued_seconds: float | None = None
    """From enqueue (Redis' clock) to the worker taking it; None for a message that a stock Celery sender pushed."""
    first_token_seconds: float | None = None
    """From the engine taking the request to its first token; None where the engine does not tell."""
    total_seconds: float
    """From the worker taking it to the last token."""


class GenerationResult(WireModel):
    """The answer to one job."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    worker: str
    """Celery node name of the worker that answered."""
    attempt: int = 1
    """1 for the first delivery."""
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text
