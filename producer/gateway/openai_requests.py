"""What OpenAI's clients send, as far as the fleet serves it; everything else is refused by name.

Source of names and ranges: OpenAI's API reference (chat completions, completions) and vLLM's extra parameters.
"""

from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from producer.contract import MAX_MESSAGES, MetadataKey, MetadataValue, Priority
from producer.prompting import Name
from producer.sampling import MAX_CHOICES, MAX_LOGPROBS, MAX_OUTPUT_TOKENS, Seed, StopString, TokenId
from producer.tools import MAX_TOOL_CALLS, ToolCall, ToolChoice, Tools

CHAT_MAX_TOKENS: Final = 1024
"""Output tokens of a chat that names no limit. OpenAI has none; here a job's place in the KV cache depends on it."""
COMPLETION_MAX_TOKENS: Final = 16
"""Output tokens of a completion that names no limit, as OpenAI has it."""

MOST_PROMPTS: Final = 1_000
"""Prompts of one request, each of which is a job."""
MOST_STREAMED_PROMPTS: Final = 100
"""The same where it is streamed: each is an answer that is followed while it is written."""

OutputTokens = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)]
# A wrong element is told of once, and not as often as it is there.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
ListsOfTokenIds = Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
Stops = StopString | Annotated[list[StopString], Len(max_length=4)]


UNSERVED: Final = frozenset(
    {
        *("audio", "best_of", "echo", "function_call", "functions", "logit_bias", "modalities", "moderation"),
        *("prediction", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier"),
        *("service_tier", "store", "suffix", "verbosity", "web_search_options"),
    }
)
"""OpenAI's parameters that are refused by name; as ``null``, which some clients send, they are left out."""


class OpenAIModel(BaseModel):
    """Refuses what it does not know; the refusal names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TextPart(OpenAIModel):
    """A part of a message's content; text is the only kind that is served."""

    type: Literal["text"]
    text: str


class Message(OpenAIModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Len(max_length=MAX_TOOL_CALLS)] | None = None
    tool_call_id: Name | None = None
    refusal: None = None
    audio: None = None
    annotations: Annotated[list[Any], Len(max_length=0)] | None = None
    function_call: None = None
    """These four are in an assistant's message as OpenAI's clients give it back, and say nothing."""

    @model_validator(mode="after")
    def _says_what_it_answers(self) -> Self:
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of role 'tool' needs tool_call_id: the call that it answers")
        return self

    @property
    def text(self) -> str | None:
        """All of its parts."""
        if self.content is None or isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class JsonSchema(OpenAIModel):
    """What ``response_format`` of type ``json_schema`` holds."""

    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    """Reaches nobody, as the name: OpenAI's clients send both, and the schema alone binds."""
    strict: bool | None = None
    """Whatever it says, the answer holds to the schema."""


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
    seed: Seed | None = None
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
    priority: Priority | None = None
    """The fleet's lane; somebody waits for the answer, so it is the most urgent one unless said otherwise."""

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with what it took."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:  # noqa: ANN401 - whatever JSON held
        if not isinstance(value, dict):
            return value
        known = UNSERVED | ChatRequest.model_fields.keys() | CompletionRequest.model_fields.keys()
        left_out = {name for name, given in value.items() if given is None and name in known - cls.model_fields.keys()}
        return {name: given for name, given in value.items() if name not in left_out}


class ChatRequest(Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Len(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: OutputTokens | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: Format | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Len(max_length=16)] | None = None
    prompt_cache_key: Name | None = None
    conversation_id: Name | None = None
    """The fleet's own: ``messages`` are this conversation's next turn."""


class CompletionRequest(Common):
    """``POST /v1/completions``."""

    prompt: str | TokenIds | Texts | ListsOfTokenIds
    """One prompt as text or as token ids, or a list of such; each is a job."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """All of them, in their order."""
        given: Any = self.prompt
        is_one = isinstance(given, str) or isinstance(given[0], int)
        return [given] if is_one else given
