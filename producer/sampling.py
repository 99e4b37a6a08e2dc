"""How a job's tokens are drawn: every option under vLLM's name, and five presets over them."""

from enum import StrEnum
from typing import Annotated, Any, Final

from annotated_types import Len
from pydantic import Field

from producer.strict import StrictModel

MAX_OUTPUT_TOKENS: Final = 131_072
"""Most tokens one choice may ask for; the model's context usually ends it earlier."""
DEFAULT_MAX_TOKENS: Final = 256
"""Output tokens of a job that names no ``max_tokens`` (vLLM's own default of 16 surprises everybody)."""
MAX_CHOICES: Final = 64
"""Most choices (``n``) of one job: each takes a sequence of the engine for itself."""
MAX_STOP_STRINGS: Final = 16
MAX_STOP_STRING_CHARACTERS: Final = 256
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGPROBS: Final = 20

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_STRING_CHARACTERS)]
TokenId = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Preset(StrEnum):
    """A named starting point for the sampling options; each option stays overridable."""

    DETERMINISTIC = "deterministic"
    CREATIVE = "creative"
    BALANCED = "balanced"
    CODE = "code"
    CHAT = "chat"


PRESETS: Final[dict[Preset, dict[str, Any]]] = {
    Preset.DETERMINISTIC: {"temperature": 0.0, "seed": 0},
    Preset.CREATIVE: {"temperature": 1.0, "top_p": 0.95, "presence_penalty": 0.3},
    Preset.BALANCED: {"temperature": 0.7, "top_p": 0.9},
    Preset.CODE: {"temperature": 0.2, "top_p": 0.95},
    Preset.CHAT: {"temperature": 0.7, "top_p": 0.95, "repetition_penalty": 1.05},
}


class SamplingOptions(StrictModel):
    """vLLM's ``SamplingParams`` as far as a job may set them; an option left out keeps the preset's value.

    Without a preset an option that is left out keeps vLLM's default, but for ``max_tokens``
    (:data:`DEFAULT_MAX_TOKENS`). Source of names and ranges: ``vllm.SamplingParams``.
    """

    preset: Preset | None = None
    """Values to start from; an option given beside it wins."""
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    """Most output tokens of each choice."""
    min_tokens: int | None = Field(default=None, ge=0, le=MAX_OUTPUT_TOKENS)
    """Output tokens before the end-of-sequence token may be drawn."""
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    """0 is greedy: the likeliest token, always."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=-1)
    """-1 and 0 consider every token."""
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    repetition_penalty: float | None = Field(default=None, gt=0.0, le=10.0)
    stop: Annotated[tuple[StopString, ...], Len(max_length=MAX_STOP_STRINGS)] | None = None
    """Strings that end a choice; not part of its text."""
    stop_token_ids: Annotated[tuple[TokenId, ...], Len(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    seed: Seed | None = None
    """Makes a sampled job repeatable on one engine build; -1 is none, as vLLM has it."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    """How many choices to draw."""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    """Log probabilities of this many likeliest tokens beside each drawn one."""
    ignore_eos: bool | None = None
    """Go on to ``max_tokens`` whatever is drawn; for benchmarks."""
    skip_special_tokens: bool | None = None

    def resolved(self) -> dict[str, Any]:
        """The options in force, under vLLM's names: defaults, then the preset, then what the job set."""
        own = self.model_dump(exclude={"preset"}, exclude_none=True)
        preset = PRESETS[self.preset] if self.preset else {}
        return {"max_tokens": DEFAULT_MAX_TOKENS} | preset | own
