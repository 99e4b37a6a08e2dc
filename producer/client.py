"""The producer for threads: submit jobs, ask how they stand, wait for their results, cancel them; and dead letters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from redis.exceptions import RedisError

from producer import keys
from producer.aliasing import enqueued, settled
from producer.cancellation import prepare_cancel, read_cancel_reply
from producer.connection import (
    CONNECT_TIMEOUT_SECONDS,
    SOCKET_TIMEOUT_SECONDS,
    Deadline,
    asking,
    submit_trouble,
    submitting,
)
from producer.contract import GenerationRequest, GenerationResult
from producer.control_link import ControlLink
from producer.conversations import Conversations
from producer.jobs import CancelOutcome, JobOutcome, JobStatus, Submission, SubmitOutcome, job_id_of
from producer.map_run import MapRun, wait_for_all
from producer.operations import Operations
from producer.outcome import status_of
from producer.result_wait import ResultWait
from producer.standing import Standing
from producer.stream_reading import StreamEnded, StreamEvent
from producer.stream_wait import events
from producer.submission import RESULT_SECONDS, Destination, Submittable, as_request, prepare
from producer.submit_run import SubmitRun
from producer.window import Window

Item = TypeVar("Item")


class Producer(Operations, Standing, Conversations):
    """Submits jobs and fetches their results; safe to share between threads, and a context manager.

    ``redis_url`` is the fleet's Redis (``redis://``, ``rediss://``, ``unix://``, or ``sentinel://`` with hosts and the
    master's name: :mod:`producer.sentinel_address`); nothing is connected before the first call.
    ``job_record_seconds`` is how long a job's record and its idempotency key are kept, ``result_expires_seconds`` how
    long the answer of a cancelled job (0: for ever): as the workers keep theirs.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        socket_timeout_seconds: float = SOCKET_TIMEOUT_SECONDS,
        job_record_seconds: int = keys.JOB_RECORD_SECONDS,
        result_expires_seconds: int = RESULT_SECONDS,
    ) -> None:
        self._url = redis_url
        self._link = ControlLink(
            redis_url,
            connect_timeout_seconds=connect_timeout_seconds,
            socket_timeout_seconds=socket_timeout_seconds,
        )
        self._destination = Destination(self._link.database, job_record_seconds, result_expires_seconds)

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, request: GenerationRequest | None = None, /, **fields: Any) -> Submission:  # noqa: ANN401 - pydantic checks them
        """Queue one job, given whole or as the fields of a :class:`GenerationRequest`.

        A job with an idempotency key that is known already is not queued again, however it ended: its id comes back
        with ``duplicate`` set. The key is free again when its job is not known any more: its result has expired.

        With a ``conversation_id`` the messages are the tenant's next turn of that conversation, which need not exist
        yet: the job gets its history too. It waits for the turns before it; one that fails was as if never said.

        Raises:
            TurnInProgress: the turns before were not answered within ``conversation_terms.wait_seconds``.
            InvalidRequest: it breaks the contract, or its idempotency key names a job with another body.
            UnknownModel: no worker ever served the model and no operator declared it.
            SubmitFailed: Redis could not be reached, or refused.
        """
        asked = as_request(request, fields)
        if asked.conversation_id is not None:
            return self._submit_turn(asked)
        job = prepare(asked)
        with submitting(self._url):
            [found] = enqueued([job], self._destination, self._link.enqueue)
        return settled(found)

    def result(self, job: str | Submission, timeout_seconds: float | None = None) -> GenerationResult:
        """Wait for a job's result; without a timeout, for as long as it takes. 0 only looks.

        Raises:
            InferenceFailed: the job failed; its code says why.
            ResultNotReady: it was still queued or running when the timeout ran out.
            ResultExpired: nothing is known of the job, or not any more.
            FleetUnreachable: Redis was away when the timeout ran out, or refuses.
        """
        with asking(self._url):
            result = ResultWait(self._link, job_id_of(job)).until(Deadline(timeout_seconds))
        self._note_answer(job, result)
        return result

    def status(self, job: str | Submission) -> JobStatus:
        """Where a job stands at this moment.

        Raises:
            ResultExpired: nothing is known of the job, or not any more.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        job_id = job_id_of(job)
        with asking(self._url):
            record, meta = self._link.record_and_result(job_id)
        return status_of(job_id, record, meta)

    def cancel(self, job: str | Submission) -> CancelOutcome:
        """Stop a job, queued or running: whoever waits for it gets :class:`InferenceFailed` with ``cancelled`` now.

        A submission cancels only itself, never a later one that has its id; one that was a duplicate cancels the job
        that it names. What has ended stays as it is. Repeating it is safe.

        Raises:
            ResultExpired: nothing is known of the job, or of this submission any more.
            NotCancellable: a Celery canvas sent the job.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            reply = self._link.cancel(prepare_cancel(job, self._destination))
        return read_cancel_reply(job_id_of(job), reply)

    def stream(
        self, job: str | Submission, *, after: str = "", timeout_seconds: float | None = None
    ) -> Iterator[StreamEvent]:
        """Follow a job's answer while it is generated: deltas of its text, then the end with the whole result.

        For a job that was submitted with ``stream=True``; of another one the only delta comes with its end. Each event
        has a position: given back as ``after``, to any producer, it goes on from there, for an hour after the job's
        last words; later, and when a worker died and its answer could not be gone on with, a
        :class:`~producer.StreamRestarted` says to forget all text so far. No text of two attempts is ever mixed.

        Raises:
            InvalidRequest: ``after`` is no position.
            InferenceFailed: the job failed; what was told before is as far as it came.
            ResultExpired: nothing is known of it.
            ResultNotReady: the timeout ran out first.
            FleetUnreachable: Redis was away when the timeout ran out, or refuses.
        """
        following = events(self._link, job_id_of(job), after, Deadline(timeout_seconds))
        for event in translated(following, partial(asking, self._url)):
            if isinstance(event, StreamEnded):
                self._note_answer(job, event.result)
            yield event

    def submit_many(self, requests: Iterable[Submittable]) -> list[SubmitOutcome]:
        """Queue any number of jobs, a few hundred at once, and say what became of each request, in order.

        ``requests`` is pulled as the jobs are queued. A request that is refused is an outcome with its error, and the
        others go on: it breaks the contract, its model is unknown, its idempotency key names another job, its queue is
        full. An error of the iterable itself reaches the caller when all that came before is queued. Once begun, a
        Redis that is away for less than half a minute only delays.

        Raises:
            BatchSubmitFailed: Redis could not be reached, or refused; it has the outcomes so far and the requests for
                which none is known, which are safe to submit again.
        """
        run = SubmitRun(self._link, self._destination, requests)
        try:
            run.submit_all()
        except RedisError as error:
            raise run.batch.failure(submit_trouble(self._url, error)) from error
        return run.batch.finish()

    def map(
        self, requests: Iterable[Submittable], *, window: int = 1000, in_order: bool = True
    ) -> Iterator[JobOutcome]:
        """Submit every request and yield every outcome, with at most ``window`` jobs out or not yet yielded.

        ``requests`` may be endless: it is pulled as there is room. A request that is refused is an outcome with a
        failure (``invalid_request``, ``model_not_found``), as is a job that failed; one whose queue is full waits for
        room in it. With ``in_order`` the outcomes come in the order of the requests, without it as they end. Jobs that
        are out when the caller stops iterating stay in the fleet. Once begun, a Redis that is away for less than half
        a minute only delays.

        Raises:
            SubmitFailed: Redis could not be reached, or refused.
        """
        run = MapRun(self._link, self._destination, requests, Window(window, in_order=in_order))
        return translated(run.outcomes(), partial(submitting, self._url))

    def results(
        self, jobs: Iterable[str | Submission], timeout_seconds: float | None = None, *, in_order: bool = False
    ) -> Iterator[JobOutcome]:
        """Yield how each of these jobs ended, as they end or in the order given; the timeout is for all of them.

        Made for thousands: however many are waited for, they share one look at a time. A job that failed, or that
        nothing is known of, is an outcome with a failure.

        Raises:
            ResultNotReady: some were still queued or running when the timeout ran out. Those that had ended were
                yielded before.
            FleetUnreachable: Redis was away when the timeout ran out, or refuses.
        """
        window = Window.over([job_id_of(job) for job in jobs], in_order=in_order)
        outcomes = wait_for_all(self._link, window, Deadline(timeout_seconds))
        return translated(outcomes, partial(asking, self._url))


def translated(outcomes: Iterator[Item], errors: Callable[[], AbstractContextManager[None]]) -> Iterator[Item]:
    """The same items, with the client library's errors in our words."""
    while True:
        # Only our own steps run inside: an error that the caller throws into the iteration is the caller's.
        with errors():
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome
