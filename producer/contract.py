"""The wire contract: what a caller asks, what the system adds, and what comes back.

Three kinds of type, and nothing here depends on the rest of the project:

* :class:`GenerationRequest` is what the caller sets; it travels as the only argument of the Celery task
  ``fleet.generate`` on the queue ``fleet.<model>`` (Celery message protocol 2, JSON).
* :class:`SystemFields` is what the system adds; it travels in the message's ``fleet`` header.
* :class:`GenerationResult` is the answer; a job that was not answered ends in a :class:`Failure` with one of the
  closed list of :class:`FailureCode`.

All of them are immutable and refuse unknown fields. ``schema_version`` changes when an old reader would misread.
"""

from collections.abc import Iterator
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Final, Literal, Self

from annotated_types import Len
from pydantic import AwareDatetime, Field, model_validator

from producer.answers import SCHEMA_VERSION, Choice, GenerationResult, Timings, TokenLogprob, Usage
from producer.prompting import ChatMessage, Name, ResponseFormat
from producer.sampling import Preset, SamplingOptions
from producer.strict import StrictModel
from producer.tools import Tool, ToolCall, ToolChoice, Tools, refuse_contradictions, texts_of
from producer.webhook_url import WebhookUrl

__all__ = [
    "ChatMessage",
    "Choice",
    "Failure",
    "FailureCode",
    "GenerationRequest",
    "GenerationResult",
    "Preset",
    "Priority",
    "ResponseFormat",
    "SamplingOptions",
    "SystemFields",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
]

MAX_PROMPT_BYTES: Final = 4 * 1024 * 1024
"""UTF-8 bytes of ``prompt``, or of all messages and tools together."""
MAX_PROMPT_TOKEN_IDS: Final = 1_048_576
MAX_MESSAGES: Final = 1_024
MAX_METADATA_PAIRS: Final = 16
MAX_METADATA_KEY_CHARACTERS: Final = 64
MAX_METADATA_VALUE_CHARACTERS: Final = 512
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""The whole encoded request, in bytes of JSON."""

_OTHER_PROMPTS: Final = 2
"""Ways to give a prompt that a request does not use: there are three."""

MetadataKey = Annotated[str, Field(min_length=1, max_length=MAX_METADATA_KEY_CHARACTERS)]
MetadataValue = Annotated[str, Field(max_length=MAX_METADATA_VALUE_CHARACTERS)]


class Priority(StrEnum):
    """The lane a job waits in; a worker empties a more urgent lane first."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"
    BACKGROUND = "background"


class GenerationRequest(StrictModel):
    """What a caller asks for: exactly one of ``prompt``, ``prompt_token_ids`` and ``messages``, and how to answer."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: Name
    """The served model's name; it chooses the queue."""
    prompt: str | None = None
    prompt_token_ids: (
        Annotated[tuple[Annotated[int, Field(ge=0)], ...], Len(min_length=1, max_length=MAX_PROMPT_TOKEN_IDS)] | None
    ) = None
    messages: Annotated[tuple[ChatMessage, ...], Len(min_length=1, max_length=MAX_MESSAGES)] | None = None
    sampling: SamplingOptions = SamplingOptions()
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    """Functions that the model may ask for; with ``messages`` only."""
    tool_choice: ToolChoice | None = None
    """Left out: ``auto`` where there are tools."""
    parallel_tool_calls: bool | None = None
    """False: each choice has one call at most."""
    stream: bool = False
    priority: Priority = Priority.NORMAL
    deadline: AwareDatetime | None = None
    """After this moment the answer is worth nothing: not started any more, stopped when running."""
    idempotency_key: Name | None = None
    """The same key of the same tenant names the same job, for as long as its record lives."""
    tenant: Name | None = None
    """Who it is for: tenants that wait for one model share it by tokens."""
    prompt_cache_key: Name | None = None
    """Jobs of one tenant with the same key begin alike, and are run near each other, so that the engine's prefix cache
    serves them (OpenAI's name); without it the first 1,024 characters of the prompt tell."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Len(max_length=MAX_METADATA_PAIRS)] = Field(
        default_factory=dict
    )
    """The caller's own pairs; they come back with the result."""
    webhook: WebhookUrl | None = None
    """An http(s) URL that is told how the job ended (docs/webhooks.md)."""
    conversation_id: Name | None = None
    """The tenant's conversation that ``messages`` are the next turn of; a producer puts its history before them."""
    lora: Name | None = None
    """The adapter of ``model`` that answers. A producer sets it: a caller names the adapter as the model."""

    @classmethod
    def unknown_field(cls, name: str) -> str:
        """Points at ``sampling`` for what is an option there."""
        if name in SamplingOptions.model_fields:
            return f"unknown field {name!r}: did you mean sampling.{name}?"
        return super().unknown_field(name)

    @model_validator(mode="after")
    def _asks_exactly_one_thing(self) -> Self:
        # Runs for every job: the names are looked for when there is something to say.
        if (self.prompt is None) + (self.prompt_token_ids is None) + (self.messages is None) != _OTHER_PROMPTS:
            given = [name for name in ("prompt", "prompt_token_ids", "messages") if getattr(self, name) is not None]
            raise ValueError(
                f"give exactly one of prompt, prompt_token_ids and messages (given: {', '.join(given) or 'none'})"
            )
        if (size := self.prompt_bytes) > MAX_PROMPT_BYTES:
            raise ValueError(f"the prompt has {size:,} bytes; at most {MAX_PROMPT_BYTES:,} are taken")
        if self.prompt == "":
            raise ValueError("the prompt is empty")
        if self.tools is not None or self.tool_choice is not None or self.parallel_tool_calls is not None:
            refuse_contradictions(
                self.tools, self.tool_choice, self.parallel_tool_calls, self.messages, self.response_format
            )
        if self.conversation_id is not None and (self.messages is None or (self.sampling.n or 1) > 1):
            raise ValueError("conversation_id: a turn of a conversation has messages, and one answer (n = 1)")
        return self

    @property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of the prompt, or of all messages and tools; 0 for token ids."""
        # Lone surrogates are legal in JSON and in str; the engine's tokenizer decides what they become.
        if self.prompt is not None:
            return len(self.prompt.encode("utf-8", "surrogatepass"))
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in self.texts)

    @property
    def texts(self) -> Iterator[str]:
        """All text of the prompt: the prompt, or what tools and messages say."""
        if self.prompt is not None:
            yield self.prompt
        if self.tools is not None:
            yield from texts_of(self.tools, ())
        for message in self.messages or ():
            yield from message.texts

    @property
    def tool_choice_in_force(self) -> ToolChoice:
        """Whether and what the model may call."""
        return self.tool_choice or ("none" if self.tools is None else "auto")


class SystemFields(StrictModel):
    """What the system adds to a request; the caller neither sets nor needs it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    submission_token: str
    """Unique per submit, so that a reused job id can never cancel or answer another submission."""
    enqueued_at: float
    """Seconds since the epoch, by the Redis server's clock."""
    trace_context: dict[str, str] = Field(default_factory=dict)
    """W3C trace context headers, when the caller traces."""


class FailureCode(StrEnum):
    """Why a job was not answered: a closed list, and each code knows its HTTP status and whether a retry can help."""

    INVALID_REQUEST = "invalid_request"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ENGINE_FAILED = "engine_failed"
    POISONED = "poisoned"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"

    @property
    def http_status(self) -> int:
        """The status that an HTTP door answers with."""
        return _HTTP_STATUS[self]

    @property
    def retryable(self) -> bool:
        """Whether the same request, sent again later, may succeed."""
        return self in _RETRYABLE


_CLIENT_CLOSED_REQUEST: Final = 499  # nginx's word; HTTP has none for a cancel by the caller

_HTTP_STATUS: Final[dict[FailureCode, int]] = {
    FailureCode.INVALID_REQUEST: HTTPStatus.BAD_REQUEST,
    FailureCode.MODEL_NOT_FOUND: HTTPStatus.NOT_FOUND,
    FailureCode.CONTEXT_LENGTH_EXCEEDED: HTTPStatus.BAD_REQUEST,
    FailureCode.EXPIRED: HTTPStatus.GATEWAY_TIMEOUT,
    FailureCode.CANCELLED: _CLIENT_CLOSED_REQUEST,
    FailureCode.ENGINE_FAILED: HTTPStatus.BAD_GATEWAY,
    FailureCode.POISONED: HTTPStatus.UNPROCESSABLE_ENTITY,
    FailureCode.QUEUE_FULL: HTTPStatus.TOO_MANY_REQUESTS,
    FailureCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    FailureCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_RETRYABLE: Final = frozenset(
    {FailureCode.ENGINE_FAILED, FailureCode.QUEUE_FULL, FailureCode.RATE_LIMITED, FailureCode.INTERNAL}
)


class Failure(StrictModel):
    """How a job ended that was not answered."""

    code: FailureCode
    message: str
    """One sentence for people: what happened, and what to do where that is known."""
