"""A turn's place in its conversation's line: first come, first asked, by arrival at Redis. Everything but the sending.

A turn takes a ticket with its first look at the conversation and keeps it by looking again; the script that queues its
job takes the ticket back. So nobody has to be told that a producer is gone: its ticket ends.
"""

from dataclasses import replace
from secrets import token_hex
from typing import Any, Final

from redis.exceptions import RedisError

from producer import keys
from producer.connection import Deadline, Outage, may_pass
from producer.contract import GenerationRequest
from producer.conversation import ConversationTerms, conversation_key
from producer.errors import InvalidRequest, TurnInProgress
from producer.history import History
from producer.script import Script, ScriptRun
from producer.submission import PreparedJob, prepare_turn

LINE_UP_SCRIPT: Final = Script.named("line", "line_up")

TICKET_SECONDS: Final = 5.0
"""A turn whose producer has not looked for so long is passed over."""
LOOK_SECONDS: Final = 1.0
"""A turn that waits looks at least this often."""
MOST_WAITING: Final = 1000
"""Turns of one conversation."""
FIRST_LOOK_SECONDS: Final = 0.05
"""The pause of the one that comes after the first; those behind it pause in proportion."""
_NOTHING: Final = "?"
"""No version of a conversation."""


class PlaceInLine:
    """One turn that is to be asked.

    Raises:
        InvalidRequest: no conversation may have this name.
    """

    def __init__(self, asked: GenerationRequest, terms: ConversationTerms) -> None:
        self._asked = asked
        self._terms = terms
        self.key = conversation_key(asked.tenant, asked.conversation_id or "")
        self.ticket = token_hex(16)
        self.deadline = Deadline(terms.wait_seconds)
        self.history = History(self.key, {})
        """What the conversation was when it was last told."""
        self._turns_ahead: int | None = None
        """None: it has not arrived."""
        self._known_version = _NOTHING
        self._is_news = False
        self._outage = Outage(patience_seconds=None)

    @property
    def look(self) -> ScriptRun:
        """The script run that takes the place, and keeps it."""
        names = (self.key, keys.line(self.key), keys.tickets(self.key))
        tells_all = "" if self._asked.idempotency_key is None else "1"
        good_ms = int(TICKET_SECONDS * 1000)
        return ScriptRun(LINE_UP_SCRIPT, names, (self.ticket, good_ms, MOST_WAITING, self._known_version, tells_all))

    def told(self, reply: list[Any]) -> None:
        """Note what the script answered.

        Raises:
            TurnInProgress: too many turns wait already.
        """
        self._outage.over()
        turns_ahead, *told = reply
        if turns_ahead < 0:
            raise TurnInProgress(
                f"conversation {self._asked.conversation_id!r}: {MOST_WAITING:,} turns of it wait already; nothing was "
                "queued, send it again later"
            )
        self._turns_ahead = turns_ahead
        self._is_news = bool(told)
        if told:
            self.history = History(self.key, dict(zip(told[0][::2], told[0][1::2], strict=True)))
            self._known_version = self.history.version

    @property
    def is_next(self) -> bool:
        """Whether no other turn is before it but the one that is being answered."""
        return self._turns_ahead == 0

    @property
    def is_ready(self) -> bool:
        """Whether it may be asked now."""
        return self.is_next and self.history.open is None

    def job(self) -> PreparedJob | None:
        """The turn as a job, where that is worth submitting now: it is next, or may have been sent before.

        A turn that was sent before does not wait for itself: its idempotency key names its job.

        Raises:
            InvalidRequest: it can not be asked after this history, or is too large.
        """
        if not self.is_ready and (self._asked.idempotency_key is None or not self._is_news):
            return None
        try:
            whole, note = self.history.next_turn(self._asked, self._terms)
        except InvalidRequest:
            if self.is_ready:
                raise
            return None  # what it goes on from may be in the answer that is waited for
        return prepare_turn(self._asked, whole, replace(note, ticket=self.ticket))

    @property
    def pause_seconds(self) -> float:
        """Until the next look of a turn that waits for others, never after its time is up."""
        return self.deadline.remaining(min(LOOK_SECONDS, FIRST_LOOK_SECONDS * max(1, self._turns_ahead or 0)))

    def pause_after(self, error: RedisError) -> float:
        """Seconds until the next attempt: a Redis that goes away while a turn waits is waited for.

        Raises:
            RedisError: the error given, when the turn had not arrived yet, its time is up, or the error will not pass.
        """
        if self._turns_ahead is None or self.deadline.has_passed:
            raise error
        return self.deadline.remaining(self._outage.pause_seconds(error))

    def refuse_if_late(self) -> None:
        """Give up when the time is up.

        Raises:
            TurnInProgress: it is.
        """
        if self.deadline.has_passed:
            raise TurnInProgress(
                f"conversation {self._asked.conversation_id!r}: the turns before this one were not answered within "
                f"{self._terms.wait_seconds:g} s; nothing was queued, send it again, or cancel the one in progress"
            )

    def is_worth_leaving(self, error: BaseException) -> bool:
        """Whether to give the ticket back; a Redis that is away could not be told, and the ticket ends by itself."""
        return not (isinstance(error, RedisError) and may_pass(error))
