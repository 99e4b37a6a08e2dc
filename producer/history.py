"""What a conversation's next turn is asked after, and what becomes of it: everything but the sending.

A turn's prompt is the system turn, as many of the latest turns as fit, and its own messages. How many tokens a history
has is not guessed: its last turn's usage says it, prompt and answer together. What a single turn has of them is the
difference to those before it; what a new turn will have is estimated by its bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from math import ceil
from typing import Final

from producer.contract import (
    MAX_MESSAGES,
    MAX_PROMPT_BYTES,
    Failure,
    FailureCode,
    GenerationRequest,
    GenerationResult,
)
from producer.conversation import Conversation, ConversationTerms, Turn, prompt_room_tokens
from producer.conversation_entries import (
    ANSWER,
    JOB,
    LAST,
    LIMIT,
    SETTLED,
    SYSTEM,
    VERSION,
    Answer,
    Messages,
    StoredTurn,
    TurnNote,
    answer_entry,
    bytes_of,
    content_bytes,
    decoded,
    messages_entry,
    read_messages,
    read_turn,
    turn_entry,
)
from producer.errors import InvalidRequest, UnknownConversation
from producer.jobs import Submission
from producer.outcome import Outcome
from producer.script import Script, ScriptRun

SETTLE_SCRIPT: Final = Script.named("settle_turn")

TOOL: Final = "tool"
SYSTEM_ROLES: Final = ("system", "developer")
BYTES_PER_TOKEN: Final = 3.0
"""Of text that no engine has counted yet."""
MESSAGE_TOKENS: Final = 8
"""What a chat template puts around a message, at most as a rule."""
LIMIT_SHARE: Final = 0.75
"""A prompt that was too long for the model is followed by one of this part of it."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of what a prompt may begin with."""

    system: int
    turns: Mapping[int, int]


class History:
    """A conversation as it was read; ``fields`` is its hash, empty when there is none."""

    def __init__(self, key: str, fields: Mapping[bytes, bytes]) -> None:
        self._key = key
        self._fields = fields
        self.version = fields.get(VERSION, b"").decode()
        numbers = sorted(int(name) for name in fields if name.isdigit())
        turns = [
            read_turn(number, fields[b"%d" % number], fields.get(f"{number}{ANSWER}".encode())) for number in numbers
        ]
        self.open = turns.pop() if self.version and not self.version.endswith(SETTLED) else None
        """The turn that waits for its answer."""
        self._answered = turns

    @property
    def exists(self) -> bool:
        """Whether there is such a conversation."""
        return bool(self._fields)

    @property
    def open_job_id(self) -> str:
        """The job of the open turn."""
        return self._fields[JOB].decode()

    @property
    def tokens(self) -> int:
        """Of all that was said, answers included; 0 before the first answer."""
        return self._last_answer.total_tokens if self._last_answer else 0

    @cached_property
    def _visible(self) -> list[StoredTurn]:
        """The turns that the last one was asked after, and it."""
        if not self._answered:
            return []
        last = self._answered[-1]
        first = min(last.sent, default=last.number)
        return [turn for turn in self._answered if turn.number >= first]

    @property
    def _last_answer(self) -> Answer | None:
        return self._answered[-1].answer if self._answered else None

    @cached_property
    def system(self) -> Messages:
        """The system turn that is in force; the open turn's is not yet."""
        return _system_after(self._answered, self._kept_system)

    @property
    def _kept_system(self) -> Messages:
        return read_messages(decoded(self._fields[SYSTEM])) if SYSTEM in self._fields else ()

    def turns(self) -> tuple[Turn, ...]:
        """As a caller sees them, the open one last."""
        told = [
            Turn(turn.answer.job_id, turn.messages, turn.answer.text, turn.answer.tool_calls)
            for turn in self._visible
            if turn.answer is not None
        ]
        return (*told, *([Turn(self.open_job_id, self.open.messages, None)] if self.open else []))

    @cached_property
    def _sizes(self) -> Sizes:
        """The last usage, shared out among system turn and turns."""
        if not self._answered:
            return Sizes(0, {})
        last = self._answered[-1]
        earlier = sum(last.sent.values())
        system_tokens = last.system_tokens
        if system_tokens is None:
            # Prompt and answer were counted together with it: its part of them is that of its bytes.
            own_bytes = max(1, content_bytes(self.system) + last.content_bytes)
            system_tokens = max(0, self.tokens - earlier) * content_bytes(self.system) // own_bytes
        return Sizes(system_tokens, {**last.sent, last.number: max(1, self.tokens - earlier - system_tokens)})

    def next_turn(self, request: GenerationRequest, terms: ConversationTerms) -> tuple[GenerationRequest, TurnNote]:
        """The whole request of a turn, and what to note of it.

        Raises:
            InvalidRequest: it says nothing but a system turn, or is too long even without a history.
        """
        own_system, messages = _parted(request.messages or ())
        if not messages:
            raise InvalidRequest("messages: a turn of a conversation needs a message after its system messages")
        is_new_system = bool(own_system) and own_system != self.system
        system = own_system or self.system
        system_tokens = None if is_new_system or not self._answered else self._sizes.system
        own_tokens = (self._estimate(system) if system_tokens is None else system_tokens) + self._estimate(messages)
        kept = self._that_fit(system + messages, self._budget(request, terms) - own_tokens)
        said = (message for turn in kept for message in _said(turn))
        sent = {turn.number: self._sizes.turns[turn.number] for turn in kept}
        whole = request.model_copy(
            update={
                "messages": (*system, *said, *messages),
                "conversation_id": None,
                "prompt_cache_key": request.prompt_cache_key or _cache_key(request.conversation_id or ""),
            }
        )
        return whole, self._note(
            turn_entry(messages, own_system if is_new_system else None, sent, system_tokens), terms
        )

    def _note(self, entry: str, terms: ConversationTerms) -> TurnNote:
        dropped = [turn for turn in self._answered if turn not in self._visible]
        has_system = any(turn.system is not None for turn in dropped)
        return TurnNote(
            key=self._key,
            after=self.version,
            number=int(self._fields.get(LAST, 0)) + 1,
            entry=entry,
            expires_seconds=terms.expires_seconds,
            dropped=[turn.number for turn in dropped],
            system=messages_entry(_system_after(dropped, self._kept_system)) if has_system else "",
            worker=self._last_answer.worker if self._last_answer else "",
        )

    def _budget(self, request: GenerationRequest, terms: ConversationTerms) -> int:
        """Tokens that the prompt may have."""
        most = min(terms.max_tokens, int(self._fields.get(LIMIT, terms.max_tokens)))
        return prompt_room_tokens(most, answer_tokens(request))

    def _estimate(self, messages: Messages) -> int:
        counted = content_bytes(self.system) + sum(turn.content_bytes for turn in self._visible)
        bytes_per_token = counted / self.tokens if self.tokens and counted else BYTES_PER_TOKEN
        return ceil(content_bytes(messages) / bytes_per_token) + MESSAGE_TOKENS * len(messages)

    def _that_fit(self, own: Messages, tokens_left: int) -> list[StoredTurn]:
        """The latest turns, as many as there is room for in front of these messages."""
        bytes_left = MAX_PROMPT_BYTES - bytes_of(messages_entry(own))
        messages_left = MAX_MESSAGES - len(own)
        if bytes_left < 0 or messages_left < 0:
            raise InvalidRequest(
                f"messages: the system turn and this one together have more than {MAX_PROMPT_BYTES:,} bytes of JSON, "
                f"or more than {MAX_MESSAGES:,} messages"
            )
        kept: list[StoredTurn] = []
        for turn in reversed(self._visible):
            tokens_left -= self._sizes.turns[turn.number]
            bytes_left -= turn.stored_bytes
            messages_left -= len(turn.messages) + 1
            if min(tokens_left, bytes_left, messages_left) < 0:
                break
            kept.append(turn)
        while kept and kept[-1].messages[0].role == TOOL:  # its call has left
            kept.pop()
        first = next(message for message in own if message.role not in SYSTEM_ROLES)
        if not kept and first.role == TOOL:
            raise InvalidRequest("messages: the call that this turn answers is not in the conversation (any more)")
        return kept[::-1]

    def settled(self, outcome: Outcome | None, terms: ConversationTerms) -> ScriptRun:
        """The script run that notes how the open turn's job ended; None: nobody knows it any more."""
        if outcome is not None and not isinstance(outcome, Failure):
            return _settle_run(self._key, self.version, terms, Answer.of(outcome))
        limit = ""
        if self.open and self.open.sent and outcome and outcome.code is FailureCode.CONTEXT_LENGTH_EXCEEDED:
            # The oldest turns leave the next prompt, or no turn of this conversation would ever be answered again.
            tokens = sum(self.open.sent.values()) + self._sizes.system + self._estimate(self.open.messages)
            limit = str(max(1, int(tokens * LIMIT_SHARE)))
        return _settle_run(self._key, self.version, terms, None, "" if self._answered else "1", limit)


def answer_run(key: str, job: Submission, result: GenerationResult, terms: ConversationTerms) -> ScriptRun:
    """The script run that notes a turn's answer. Repeating it is safe, whoever does."""
    return _settle_run(key, job.submission_token, terms, Answer.of(result))


def answer_tokens(request: GenerationRequest) -> int:
    """Most tokens of a turn's answer."""
    return int(request.sampling.resolved()["max_tokens"])


def _settle_run(key: str, version: str, terms: ConversationTerms, answer: Answer | None, *unanswered: str) -> ScriptRun:
    noted, tokens = ("", "") if answer is None else (answer_entry(answer), answer.total_tokens)
    arguments = (version, terms.expires_seconds, noted, *(unanswered or ("", "")), tokens)
    return ScriptRun(SETTLE_SCRIPT, (key,), arguments)


def told(history: History, conversation_id: str, tenant: str | None, left_seconds: float) -> Conversation:
    """The conversation for its caller.

    Raises:
        UnknownConversation: there is none.
    """
    if not history.exists:
        raise UnknownConversation(conversation_id)
    return Conversation(conversation_id, tenant, history.system, history.turns(), history.tokens, left_seconds)


def _parted(messages: Messages) -> tuple[Messages, Messages]:
    """The system turn that messages begin with, and the others."""
    count = next((at for at, message in enumerate(messages) if message.role not in SYSTEM_ROLES), len(messages))
    return messages[:count], messages[count:]


def _system_after(turns: list[StoredTurn], before: Messages) -> Messages:
    return next((turn.system for turn in reversed(turns) if turn.system is not None), before)


def _said(turn: StoredTurn) -> Messages:
    return turn.messages if turn.answer is None else (*turn.messages, turn.answer.message)


def _cache_key(conversation_id: str) -> str:
    digest = sha1(conversation_id.encode(), usedforsecurity=False).hexdigest()
    return f"conversation {digest}"
