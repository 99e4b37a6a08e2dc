"""What OpenAI's clients send, as far as the fleet serves it; everything else is refused by name.

Source of names and ranges: OpenAI's API reference (chat completions, completions) and vLLM's extra parameters.
"""

from typing import Annotated, Any, Final, Literal

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from producer.contract import MAX_MESSAGES, MetadataKey, MetadataValue, Name, Priority
from producer.sampling import MAX_CHOICES, MAX_LOGPROBS, MAX_OUTPUT_TOKENS, StopString, TokenId

CHAT_MAX_TOKENS: Final = 1024
"""Output tokens of a chat that names no limit. OpenAI has none; here a job's place in the KV cache depends on it."""
COMPLETION_MAX_TOKENS: Final = 16
"""Output tokens of a completion that names no limit, as OpenAI has it."""

OutputTokens = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)]
Stops = StopString | Annotated[list[StopString], Len(max_length=4)]


class OpenAIModel(BaseModel):
    """Refuses what it does not know; the refusal names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TextPart(OpenAIModel):
    """A part of a message's content; text is the only kind that is served."""

    type: Literal["text"]
    text: str


class Message(OpenAIModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: Name | None = None

    @property
    def text(self) -> str:
        """All of its parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class JsonSchema(OpenAIModel):
    """What ``response_format`` of type ``json_schema`` holds."""

    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class Format(OpenAIModel):
    """``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(OpenAIModel):
    """``stream_options``."""

    include_usage: StrictBool | None = None


class Common(OpenAIModel):
    """What both kinds of completion take. ``null`` means the same as leaving a parameter out."""

    model: Name
    max_tokens: OutputTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: Name | None = None
    """The tenant that the job is for; where a key tells the tenant, a note in its metadata."""
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_OUTPUT_TOKENS)] | None = None
    ignore_eos: StrictBool | None = None
    skip_special_tokens: StrictBool | None = None
    stop_token_ids: Annotated[list[TokenId], Len(max_length=64)] | None = None
    priority: Priority = Priority.INTERACTIVE
    """The fleet's lane; somebody waits for the answer, so it is the most urgent one unless said otherwise."""


class ChatRequest(Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Len(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: OutputTokens | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: Format | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Len(max_length=16)] | None = None
    prompt_cache_key: Name | None = None


class CompletionRequest(Common):
    """``POST /v1/completions``."""

    prompt: str | Annotated[list[TokenId], Len(min_length=1)] | Annotated[list[str], Len(min_length=1, max_length=1)]
    """One prompt; several are several jobs."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
