"""Conversations for threads: a turn is submitted after what was said before, read, forgotten."""

import time
from contextlib import suppress
from dataclasses import replace

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer.aliasing import enqueued, settled
from producer.connection import Deadline, asking, submitting
from producer.contract import GenerationRequest, GenerationResult
from producer.control_link import ControlLink
from producer.conversation import Conversation, ConversationTerms, conversation_key
from producer.errors import InferenceFailed, ResultExpired, ResultNotReady, TurnInProgress
from producer.history import History, answer_run, told
from producer.jobs import Submission
from producer.outcome import Outcome
from producer.result_wait import ResultWait
from producer.submission import Destination
from producer.turn_line import LOOK_SECONDS, PlaceInLine


class Conversations:
    """The part of a producer that knows conversations; see :class:`producer.Producer`."""

    _url: str
    _link: ControlLink
    _destination: Destination
    conversation_terms: ConversationTerms = ConversationTerms()
    """How this producer keeps conversations; set it to change that."""

    def conversation(self, conversation_id: str, tenant: str | None = None) -> Conversation:
        """A conversation as its next turn will find it.

        Raises:
            UnknownConversation: this tenant has none of this id, or not any more.
            InvalidRequest: no conversation may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        key = conversation_key(tenant, conversation_id)
        with asking(self._url):
            while True:
                fields, left_seconds = self._link.conversation(key)
                history = History(key, fields)
                if history.open is None or not self._has_settled(history, Deadline(0)):
                    return told(history, conversation_id, tenant, left_seconds)

    def forget_conversation(self, conversation_id: str, tenant: str | None = None) -> bool:
        """Remove a conversation; whether there was one. A job that answers its last turn goes on.

        Raises:
            InvalidRequest: no conversation may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        key = conversation_key(tenant, conversation_id)
        with asking(self._url):
            return self._link.forget_conversation(key)

    def _submit_turn(self, asked: GenerationRequest) -> Submission:
        """Queue the job of a turn when it is next and the turn before it is settled.

        Raises:
            TurnInProgress: that took longer than ``conversation_terms.wait_seconds``.
            InvalidRequest, UnknownModel, QueueFull, SubmitFailed: as :meth:`producer.Producer.submit`.
        """
        place = PlaceInLine(asked, self.conversation_terms)
        with submitting(self._url):
            try:
                while (submission := self._asked_now(place)) is None:
                    self._wait_in_line(place)
            except BaseException as error:
                if place.is_worth_leaving(error):
                    with suppress(RedisError):
                        self._link.leave_line(place.key, place.ticket)
                raise
        return submission

    def _asked_now(self, place: PlaceInLine) -> Submission | None:
        """Look, and queue the turn's job if it may be; None when it may not yet."""
        while True:
            try:
                place.told(self._link.line_up(place.look))
                break
            except RedisError as error:
                time.sleep(place.pause_after(error))
        if (job := place.job()) is None:
            return None
        with suppress(TurnInProgress):
            [found] = enqueued([job], self._destination, self._link.enqueue)
            return replace(settled(found), conversation_key=place.key)
        return None

    def _wait_in_line(self, place: PlaceInLine) -> None:
        """Return when there is reason to look again."""
        if not place.is_next or place.history.open is None:
            time.sleep(place.pause_seconds)
        else:
            # What is wrong with Redis the next look finds too.
            with suppress(RedisConnectionError, RedisTimeoutError):
                if self._has_settled(place.history, Deadline(place.deadline.remaining(LOOK_SECONDS))):
                    return
        place.refuse_if_late()

    def _has_settled(self, history: History, deadline: Deadline) -> bool:
        """Note how the open turn ended; False when it had not by the deadline."""
        outcome: Outcome | None
        try:
            outcome = ResultWait(self._link, history.open_job_id).until(deadline)
        except InferenceFailed as error:
            outcome = error.failure
        except ResultExpired:
            outcome = None
        except ResultNotReady:
            return False
        self._link.settle_turn(history.settled(outcome, self.conversation_terms))
        return True

    def _note_answer(self, job: str | Submission, result: GenerationResult) -> None:
        """Put the answer into its conversation; where that fails, the next turn does it."""
        if isinstance(job, Submission) and job.conversation_key is not None:
            with suppress(RedisError):
                self._link.settle_turn(answer_run(job.conversation_key, job, result, self.conversation_terms))
