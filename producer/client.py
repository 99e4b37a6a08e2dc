"""The producer for threads: submit jobs, ask how they stand, wait for their results, cancel them; and dead letters."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from producer import keys
from producer.cancellation import prepare_cancel, read_cancel_reply
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS, Deadline, asking, submitting
from producer.contract import GenerationRequest, GenerationResult
from producer.control_link import ControlLink
from producer.dead_letters import DeadLetter, LetterScan, found_letter, prepare_replay, replayed_job
from producer.jobs import CancelOutcome, JobOutcome, JobStatus, ModelDeclaration, Submission, job_id_of
from producer.map_run import MapRun
from producer.outcome import status_of
from producer.registry import checked_name, read_models
from producer.result_wait import ResultWait
from producer.submission import RESULT_SECONDS, Destination, RequestLike, as_request, enqueue_run, prepare, read_reply
from producer.window import Window


class Producer:
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

        Raises:
            InvalidRequest: it breaks the contract, or its idempotency key names a job with another body.
            UnknownModel: no worker ever served the model and no operator declared it.
            SubmitFailed: Redis could not be reached, or refused.
        """
        job = prepare(as_request(request, fields))
        with submitting(self._url):
            reply = self._link.enqueue(enqueue_run([job], self._destination))
        return read_reply(job, reply)

    def result(self, job: str | Submission, timeout_seconds: float | None = None) -> GenerationResult:
        """Wait for a job's result; without a timeout, for as long as it takes. 0 only looks.

        Raises:
            InferenceFailed: the job failed; its code says why.
            ResultNotReady: it was still queued or running when the timeout ran out.
            ResultExpired: nothing is known of the job, or not any more.
            FleetUnreachable: Redis was away when the timeout ran out, or refuses.
        """
        with asking(self._url):
            return ResultWait(self._link, job_id_of(job)).until(Deadline(timeout_seconds))

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

    def map(
        self, requests: Iterable[RequestLike], *, window: int = 1000, in_order: bool = True
    ) -> Iterator[JobOutcome]:
        """Submit every request and yield every outcome, with at most ``window`` jobs out or not yet yielded.

        ``requests`` may be endless: it is pulled as there is room. A request that is refused is an outcome with a
        failure (``invalid_request``, ``model_not_found``), as is a job that failed. With ``in_order`` the outcomes come
        in the order of the requests, without it as they end. Jobs that are out when the caller stops iterating stay in
        the fleet. Once begun, a Redis that is away for less than half a minute only delays.

        Raises:
            SubmitFailed: Redis could not be reached, or refused.
        """
        run = MapRun(self._link, self._destination, requests, Window(window, in_order=in_order))
        return self._translated(run)

    def _translated(self, run: MapRun) -> Iterator[JobOutcome]:
        outcomes = run.outcomes()
        while True:
            # Only our own steps run inside: an error that the caller throws into the iteration is the caller's.
            with submitting(self._url):
                outcome = next(outcomes, None)
            if outcome is None:
                return
            yield outcome

    def models(self) -> dict[str, ModelDeclaration]:
        """The models that jobs may name.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_models(self._link.models())

    def declare_model(self, name: str) -> None:
        """Let jobs name this model before a worker has served it; no change if it is known.

        Raises:
            InvalidRequest: no model may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            self._link.declare_model(checked_name(name))

    def forget_model(self, name: str) -> bool:
        """Refuse further jobs for this model; whether it was known. Jobs that wait stay queued.

        Raises:
            InvalidRequest: no model may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.forget_model(checked_name(name))

    def dead_letters(self, limit: int = 100, offset: int = 0, model: str | None = None) -> list[DeadLetter]:
        """Dead letters, of one model or of all, the latest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        scan = LetterScan(limit, offset, model)
        with asking(self._url):
            while (places := scan.next_range) is not None:
                scan.take(self._link.letters(*places))
        return scan.found

    def dead_letter_ids(self) -> list[str]:
        """The ids of all dead letters, the latest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return [letter_id.decode() for letter_id in self._link.letter_ids(0, -1)]

    def dead_letter(self, letter_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            UnknownDeadLetter: there is none of this id.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            stored = self._link.letter(letter_id)
        return found_letter(letter_id, stored)

    def replay_dead_letter(self, letter_id: str) -> str:
        """Queue the letter's message again, as new: its job's id. The job's failure is forgotten, as is a cancel of it.

        A deadline in the message still holds: past it, the job ends as ``expired``.

        Raises:
            UnknownDeadLetter: there is none of this id (any more).
            NotReplayable: it names no job.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        while True:
            letter = self.dead_letter(letter_id)
            run = prepare_replay(letter, self._destination)
            with asking(self._url):
                reply = self._link.replay(run)
            if (job_id := replayed_job(letter, reply)) is not None:
                return job_id

    def purge_dead_letters(self, letter_ids: Iterable[str]) -> int:
        """Remove these dead letters for good; how many of them there were.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.purge(list(letter_ids))

    def purge_all_dead_letters(self) -> int:
        """Remove every dead letter for good; how many there were.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.purge_all()
