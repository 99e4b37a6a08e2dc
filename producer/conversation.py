"""Conversations as a caller knows them: their turns, how long they are kept, and how much of them is sent."""

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from producer import keys
from producer.contract import ChatMessage, ToolCall
from producer.errors import InvalidRequest
from producer.prompting import Name

CONVERSATION_SECONDS: Final = 24 * 3600
CONVERSATION_TOKENS: Final = 8_192
TURN_WAIT_SECONDS: Final = 60.0
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class ConversationTerms:
    """How a producer keeps conversations.

    Raises:
        InvalidRequest: a number is out of range.
    """

    expires_seconds: int = CONVERSATION_SECONDS
    """How long a conversation is kept after its last turn was submitted or answered."""
    max_tokens: int = CONVERSATION_TOKENS
    """Most tokens of a turn's prompt together with its answer: the model's context, or less. The oldest turns are left
    out of a prompt that would have more; the system turn and the turn itself are always sent."""
    wait_seconds: float = TURN_WAIT_SECONDS
    """How long a turn waits for those before it to be answered."""

    def __post_init__(self) -> None:
        if self.expires_seconds < 1 or self.max_tokens < 1 or not self.wait_seconds >= 0:
            raise InvalidRequest(
                "a conversation's expires_seconds and max_tokens are above 0, wait_seconds is not below"
            )


def prompt_room_tokens(most_tokens: int, answer_tokens: int) -> int:
    """Tokens that a prompt may have which has ``most_tokens`` together with an answer of up to ``answer_tokens``."""
    # An answer that may be longer than half of it all would leave its question without a history.
    return most_tokens - min(answer_tokens, most_tokens // 2)


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and what was answered."""

    job_id: str
    messages: tuple[ChatMessage, ...]
    answer: str | None
    """None while the job is queued or running."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """What the answer asks for; the next turn begins with messages of role ``tool``."""

    @property
    def said(self) -> tuple[ChatMessage, ...]:
        """All of it in order."""
        return self.messages if self.answer is None else (*self.messages, answered(self.answer, self.tool_calls))


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the next turn will be asked after, but for turns that have to leave by then."""

    conversation_id: str
    tenant: str | None
    system: tuple[ChatMessage, ...]
    """What stays, whatever leaves: system and developer messages that a turn began with."""
    turns: tuple[Turn, ...]
    """The oldest first."""
    tokens: int
    """Of all answered turns together, by the engine's own count."""
    expires_in_seconds: float

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """All of it in order."""
        return (*self.system, *(message for turn in self.turns for message in turn.said))

    @property
    def open_job_id(self) -> str | None:
        """The job that answers the last turn, while it has not."""
        return self.turns[-1].job_id if self.turns and self.turns[-1].answer is None else None


def answered(text: str, tool_calls: tuple[ToolCall, ...] | None) -> ChatMessage:
    """An answer as a message."""
    return ChatMessage(role="assistant", content=text, tool_calls=tool_calls)


def conversation_key(tenant: str | None, conversation_id: str) -> str:
    """Where a tenant's conversation is kept; no tenant is a tenant of its own.

    Raises:
        InvalidRequest: no conversation, or no tenant, may have this name.
    """
    try:
        _NAME.validate_python(conversation_id)
        if tenant is not None:
            _NAME.validate_python(tenant)
    except ValidationError as error:
        raise InvalidRequest("a conversation's id, and a tenant's name, has 1 to 256 characters of text") from error
    return keys.conversation(tenant, conversation_id)
