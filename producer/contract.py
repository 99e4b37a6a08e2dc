"""The wire contract: what a caller asks, what the system adds, and what comes back.

Three kinds of type, and nothing here depends on the rest of the project:

* :class:`GenerationRequest` is what the caller sets; it travels as the only argument of the Celery task
  ``fleet.generate`` on the queue ``fleet.<model>`` (Celery message protocol 2, JSON).
* :class:`SystemFields` is what the system adds; it travels in the message's ``fleet`` header.
* :class:`GenerationResult` is the answer; a job that was not answered ends in a :class:`Failure` with one of the
  closed list of :class:`FailureCode`.

All of them are immutable and refuse unknown fields. ``schema_version`` changes when an old reader would misread.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Len
from pydantic import AwareDatetime, Field, field_validator, model_validator

from producer.sampling import Preset, SamplingOptions
from producer.strict import StrictModel

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
    "Usage",
]

SCHEMA_VERSION: Final = 1

MAX_PROMPT_BYTES: Final = 4 * 1024 * 1024
"""UTF-8 bytes of ``prompt``, or of all messages together."""
MAX_PROMPT_TOKEN_IDS: Final = 1_048_576
MAX_MESSAGES: Final = 1_024
MAX_METADATA_PAIRS: Final = 16
MAX_METADATA_KEY_CHARACTERS: Final = 64
MAX_METADATA_VALUE_CHARACTERS: Final = 512
MAX_CHOICE_STRINGS: Final = 256
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""The whole encoded request, in bytes of JSON."""
MAX_NAME_CHARACTERS: Final = 256

_OTHER_PROMPTS: Final = 2
"""Ways to give a prompt that a request does not use: there are three."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=MAX_METADATA_KEY_CHARACTERS)]
MetadataValue = Annotated[str, Field(max_length=MAX_METADATA_VALUE_CHARACTERS)]


class Priority(StrEnum):
    """The lane a job waits in; a worker empties a more urgent lane first."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"
    BACKGROUND = "background"


class ChatMessage(StrictModel):
    """One turn of a conversation; the worker renders all of them with the model's own chat template."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    name: Name | None = None


class ResponseFormat(StrictModel):
    """The shape that the text must have, enforced while it is generated (vLLM's structured outputs)."""

    type: Literal["text", "json_object", "json_schema", "regex", "choice"]
    json_schema: dict[str, Any] | None = None
    """A JSON Schema; for ``json_schema`` only."""
    regex: str | None = None
    """For ``regex`` only."""
    choices: Annotated[tuple[str, ...], Len(min_length=1, max_length=MAX_CHOICE_STRINGS)] | None = None
    """The texts to choose from; for ``choice`` only."""

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        wanted = {"json_schema": "json_schema", "regex": "regex", "choice": "choices"}.get(self.type)
        for name in ("json_schema", "regex", "choices"):
            given = getattr(self, name) is not None
            if given and name != wanted:
                raise ValueError(f"{name} does not go with type {self.type!r}")
            if not given and name == wanted:
                raise ValueError(f"type {self.type!r} needs {name}")
        return self


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
    webhook: str | None = None
    conversation_id: Name | None = None
    lora: Name | None = None

    @classmethod
    def unknown_field(cls, name: str) -> str:
        """Points at ``sampling`` for what is an option there."""
        if name in SamplingOptions.model_fields:
            return f"unknown field {name!r}: did you mean sampling.{name}?"
        return super().unknown_field(name)

    @field_validator("webhook", "conversation_id", "lora")
    @classmethod
    def _refuse_what_no_worker_does_yet(cls, value: object) -> object:
        # Reserved names of the contract: refused by name, because ignoring them would look like an answer.
        if value:
            raise ValueError("not served by this version of the fleet; leave it out")
        return value

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
        return self

    @property
    def prompt_bytes(self) -> int:
        """UTF-8 bytes of the prompt or of all messages; 0 for token ids."""
        # Lone surrogates are legal in JSON and in str; the engine's tokenizer decides what they become.
        if self.prompt is not None:
            return len(self.prompt.encode("utf-8", "surrogatepass"))
        return sum(len(message.content.encode("utf-8", "surrogatepass")) for message in self.messages or ())


class SystemFields(StrictModel):
    """What the system adds to a request; the caller neither sets nor needs it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    submission_token: str
    """Unique per submit, so that a reused job id can never cancel or answer another submission."""
    enqueued_at: float
    """Seconds since the epoch, by the Redis server's clock."""
    trace_context: dict[str, str] = Field(default_factory=dict)
    """W3C trace context headers, when the caller traces."""


class TokenLogprob(StrictModel):
    """One drawn token with its log probability and the likeliest alternatives."""

    token: str
    token_id: int
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


class Choice(StrictModel):
    """One of the ``n`` texts of a job."""

    index: int
    text: str
    token_count: int
    finish_reason: Literal["stop", "length", "abort", "error", "repetition"] | None
    """vLLM's word for why the text ended; ``length`` is ``max_tokens`` or the end of the context."""
    logprobs: tuple[TokenLogprob, ...] | None = None


class Usage(StrictModel):
    """Tokens of one job, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose KV cache was already there."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timings(StrictModel):
    """Where a job's time went, in seconds; by the worker's clock unless said otherwise."""

    queued_seconds: float | None = None
    """From enqueue (Redis' clock) to the worker taking it; None for a message that a stock Celery sender pushed."""
    first_token_seconds: float | None = None
    """From the engine taking the request to its first token; None where the engine does not tell."""
    total_seconds: float
    """From the worker taking it to the last token."""


class GenerationResult(StrictModel):
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
