"""What Redis holds of a conversation (``fleet:conversation:<tenant>:<id>``), to and from its fields. No I/O.

======================  ==============================================================================================
field                   meaning
======================  ==============================================================================================
``version``             submission token of the last turn, with a full stop behind it once that turn is settled; what
                        a change must find to be made
``last``                number of the last turn, in order of submission; numbers of turns that failed are missing
``job``                 id of the job that answers it
``<number>``            a turn, JSON: ``messages``; ``system`` where it gave another one than was there; ``sent``, the
                        tokens of each earlier turn that its prompt began with, and ``system_tokens``, as far as known
``<number>.answer``     its answer, JSON: ``job_id``, ``text``, ``prompt_tokens``, ``completion_tokens``,
                        ``tool_calls``, ``worker``
``system``              the system turn of turns that are gone, JSON
``tokens``              tokens of all that was said, as of the last answer that was noted
``limit``               most tokens of a prompt, since one with more was too long for the model
======================  ==============================================================================================
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from producer import keys
from producer.contract import ChatMessage, GenerationResult, ToolCall
from producer.conversation import answered

VERSION: Final = b"version"
LAST: Final = b"last"
JOB: Final = b"job"
SYSTEM: Final = b"system"
TOKENS: Final = b"tokens"
LIMIT: Final = b"limit"
ANSWER: Final = ".answer"
SETTLED: Final = "."

Messages = tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a turn was answered."""

    job_id: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[ToolCall, ...] | None = None
    """What the next turn begins with the answers of."""
    worker: str = ""
    """Node name of the worker that answered, whose engine has the conversation in its prefix cache."""

    @classmethod
    def of(cls, result: GenerationResult) -> "Answer":
        """The one of a job."""
        used, calls = result.usage, result.choices[0].tool_calls
        return cls(result.id, result.text, used.prompt_tokens, used.completion_tokens, calls, result.worker)

    @property
    def message(self) -> ChatMessage:
        """As the conversation goes on with it."""
        return answered(self.text, self.tool_calls)

    @property
    def total_tokens(self) -> int:
        """Of the conversation up to and with it: what it was asked after, and what it said."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One turn as it is kept."""

    number: int
    messages: Messages
    system: Messages | None
    """The system turn from here on; None: as before."""
    sent: Mapping[int, int]
    """Tokens of each earlier turn that was part of its prompt."""
    system_tokens: int | None
    """Tokens of the system turn in its prompt; None: not known before this turn."""
    answer: Answer | None
    stored_bytes: int
    """Of JSON, more than its messages have in a job."""

    @property
    def content_bytes(self) -> int:
        """UTF-8 bytes of what was said and answered."""
        return content_bytes(self.messages) + (content_bytes((self.answer.message,)) if self.answer else 0)


@dataclass(frozen=True, slots=True)
class TurnNote:
    """What the enqueue script writes when it queues a turn's job, and what it must find to do so."""

    key: str
    after: str
    """The version that was read; empty: there was no conversation."""
    number: int
    entry: str
    expires_seconds: int
    dropped: Sequence[int]
    """Numbers of turns that no prompt will begin with any more."""
    system: str
    """The system turn to keep in their place, as JSON; empty: as it is."""
    worker: str
    """Who answered the turn before; empty: nobody did."""
    ticket: str = ""
    """With which the turn stands in the conversation's line; empty: in none."""

    @property
    def option(self) -> dict[str, Any]:
        """As ``enqueue.lua`` takes it."""
        gone = [name for number in self.dropped for name in (str(number), f"{number}{ANSWER}")]
        return {
            "key": self.key,
            "after": self.after,
            "number": str(self.number),
            "entry": self.entry,
            "seconds": self.expires_seconds,
            "gone": gone,
            "system": self.system,
            "worker": self.worker,
            "line": keys.line(self.key),
            "tickets": keys.tickets(self.key),
            "ticket": self.ticket,
        }


def turn_entry(messages: Messages, system: Messages | None, sent: Mapping[int, int], system_tokens: int | None) -> str:
    """A turn that is not answered yet, as JSON."""
    entry: dict[str, Any] = {"messages": _plain(messages), "sent": {str(number): size for number, size in sent.items()}}
    if system is not None:
        entry["system"] = _plain(system)
    if system_tokens is not None:
        entry["system_tokens"] = system_tokens
    return encoded(entry)


def answer_entry(answer: Answer) -> str:
    """An answer as JSON."""
    entry: dict[str, Any] = {
        "job_id": answer.job_id,
        "text": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "worker": answer.worker,
    }
    if answer.tool_calls is not None:
        entry["tool_calls"] = [call.model_dump() for call in answer.tool_calls]
    return encoded(entry)


def read_turn(number: int, entry: bytes, answer: bytes | None) -> StoredTurn:
    """A turn from its two fields."""
    stored = decoded(entry)
    return StoredTurn(
        number=number,
        messages=read_messages(stored["messages"]),
        system=read_messages(stored["system"]) if "system" in stored else None,
        sent={int(earlier): size for earlier, size in stored["sent"].items()},
        system_tokens=stored.get("system_tokens"),
        answer=None if answer is None else _read_answer(decoded(answer)),
        stored_bytes=len(entry) + len(answer or b""),
    )


def _read_answer(stored: dict[str, Any]) -> Answer:
    if calls := stored.pop("tool_calls", None):
        return Answer(**stored, tool_calls=tuple(ToolCall.model_validate(call) for call in calls))
    return Answer(**stored)


def read_messages(stored: Sequence[Mapping[str, Any]]) -> Messages:
    """Messages as they were said."""
    return tuple(ChatMessage.model_validate(message) for message in stored)


def messages_entry(messages: Messages) -> str:
    """Messages as JSON."""
    return encoded(_plain(messages))


def _plain(messages: Messages) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in messages]


def content_bytes(messages: Messages) -> int:
    """UTF-8 bytes of the text of messages."""
    return sum(bytes_of(text) for message in messages for text in message.texts)


def bytes_of(text: str) -> int:
    """UTF-8 bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def encoded(content: object) -> str:
    """JSON; a lone surrogate, which strict JSON refuses, is escaped."""
    try:
        return orjson.dumps(content).decode()
    except TypeError:
        return json.dumps(content)


def decoded(text: bytes) -> Any:  # noqa: ANN401 - whatever JSON held
    """What :func:`encoded` had."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
