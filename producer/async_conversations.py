"""Conversations for event loops: a turn is submitted after what was said before, read, forgotten."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer.aliasing import enqueued_async, settled
from producer.async_control_link import AsyncControlLink
from producer.cancellation import prepare_cancel
from producer.connection import Deadline, asking, submitting
from producer.contract import GenerationRequest, GenerationResult
from producer.conversation import Conversation, ConversationTerms, conversation_key, prompt_room_tokens
from producer.errors import FleetError, ResultExpired, ResultNotReady, TurnInProgress
from producer.history import History, answer_run, answer_tokens, told
from producer.jobs import Submission
from producer.outcome import Outcome, read_outcome
from producer.result_feed import ResultFeed
from producer.submission import Destination, PreparedJob
from producer.turn_line import LOOK_SECONDS, PlaceInLine


class AsyncConversations:
    """The part of a producer that knows conversations; see :class:`producer.AsyncProducer`."""

    _url: str
    _link: AsyncControlLink
    _destination: Destination
    _feed: ResultFeed
    conversation_terms: ConversationTerms = ConversationTerms()
    """How this producer keeps conversations; set it to change that."""
    _last_words: set["asyncio.Task[None]"]
    """What turns that are given up have to say yet."""

    async def conversation(self, conversation_id: str, tenant: str | None = None) -> Conversation:
        """A conversation as its next turn will find it; see :meth:`producer.Producer.conversation`."""
        key = conversation_key(tenant, conversation_id)
        with asking(self._url):
            while True:
                fields, left_seconds = await self._link.conversation(key)
                history = History(key, fields)
                if history.open is None or not await self._has_settled(history, Deadline(0)):
                    return told(history, conversation_id, tenant, left_seconds)

    async def history_tokens(self, turn: GenerationRequest) -> int:
        """Tokens of the history that a conversation's turn is asked after, as far as known before it is its turn.

        Of all that was said as of the last answer that was noted, but no more than a prompt has room for; 0 of a job
        that is no turn.

        Raises:
            InvalidRequest: no conversation may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        if turn.conversation_id is None:
            return 0
        key = conversation_key(turn.tenant, turn.conversation_id)
        with asking(self._url):
            said_tokens = await self._link.conversation_tokens(key)
        return min(said_tokens, prompt_room_tokens(self.conversation_terms.max_tokens, answer_tokens(turn)))

    async def forget_conversation(self, conversation_id: str, tenant: str | None = None) -> bool:
        """Remove a conversation; see :meth:`producer.Producer.forget_conversation`."""
        key = conversation_key(tenant, conversation_id)
        with asking(self._url):
            return await self._link.forget_conversation(key)

    async def _submit_turn(self, asked: GenerationRequest) -> Submission:
        """Queue the job of a turn when it is next and the turn before it is settled.

        Whoever is cancelled has said nothing: what was queued at that moment is cancelled too, unless others may know
        it by its idempotency key.

        Raises:
            TurnInProgress: that took longer than ``conversation_terms.wait_seconds``.
            InvalidRequest, UnknownModel, QueueFull, SubmitFailed: as :meth:`producer.Producer.submit`.
        """
        place = PlaceInLine(asked, self.conversation_terms)
        with submitting(self._url):
            try:
                while (submission := await self._asked_now(place)) is None:
                    await self._wait_in_line(place)
            except (Exception, asyncio.CancelledError) as error:
                if place.is_worth_leaving(error):
                    await self._to_the_end(self._leave_line(place))
                raise
        return submission

    async def _asked_now(self, place: PlaceInLine) -> Submission | None:
        """Look, and queue the turn's job if it may be; None when it may not yet."""
        while True:
            try:
                place.told(await self._link.line_up(place.look))
                break
            except RedisError as error:
                await asyncio.sleep(place.pause_after(error))
        if (job := place.job()) is None:
            return None
        queueing = asyncio.create_task(self._queue_turn(job, place.key))
        try:
            return await asyncio.shield(queueing)
        except asyncio.CancelledError:
            await self._to_the_end(self._take_back(queueing, job))
            raise

    async def _queue_turn(self, job: PreparedJob, key: str) -> Submission | None:
        with suppress(TurnInProgress):
            [found] = await enqueued_async([job], self._destination, self._link.enqueue)
            return replace(settled(found), conversation_key=key)
        return None

    async def _take_back(self, queueing: "asyncio.Task[Submission | None]", job: PreparedJob) -> None:
        with suppress(FleetError, RedisError):
            submission = await queueing
            if submission is not None and job.request.idempotency_key is None:
                await self._link.cancel(prepare_cancel(submission, self._destination))

    async def _leave_line(self, place: PlaceInLine) -> None:
        with suppress(RedisError):
            await self._link.leave_line(place.key, place.ticket)

    async def _to_the_end(self, last_words: Coroutine[Any, Any, None]) -> None:
        """Wait for it; it goes on by itself when this is cancelled (again)."""
        task = asyncio.create_task(last_words)
        self._last_words.add(task)
        task.add_done_callback(self._last_words.discard)
        await asyncio.shield(task)

    async def _end_last_words(self) -> None:
        if self._last_words:
            await asyncio.wait(self._last_words)

    async def _wait_in_line(self, place: PlaceInLine) -> None:
        """Return when there is reason to look again."""
        if not place.is_next or place.history.open is None:
            await asyncio.sleep(place.pause_seconds)
        else:
            # What is wrong with Redis the next look finds too.
            with suppress(RedisConnectionError, RedisTimeoutError):
                if await self._has_settled(place.history, Deadline(place.deadline.remaining(LOOK_SECONDS))):
                    return
        place.refuse_if_late()

    async def _has_settled(self, history: History, deadline: Deadline) -> bool:
        """Note how the open turn ended; False when it had not by the deadline."""
        has_record, meta = await self._link.presence(history.open_job_id)
        outcome: Outcome | None = read_outcome(meta)
        if outcome is None and (has_record or meta is not None):
            try:
                wait_seconds = deadline.remaining(self.conversation_terms.wait_seconds)
                outcome = await self._feed.outcome(history.open_job_id, wait_seconds)
            except ResultExpired:
                outcome = None
            except ResultNotReady:
                return False
        await self._link.settle_turn(history.settled(outcome, self.conversation_terms))
        return True

    async def _note_answer(self, job: str | Submission, result: GenerationResult) -> None:
        """Put the answer into its conversation; where that fails, the next turn does it."""
        if isinstance(job, Submission) and job.conversation_key is not None:
            with suppress(RedisError):
                await self._link.settle_turn(answer_run(job.conversation_key, job, result, self.conversation_terms))
