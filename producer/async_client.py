"""The producer for event loops: submit jobs, ask how they stand, wait for their results, cancel; dead letters."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Self

from producer import keys
from producer.async_control_link import AsyncControlLink
from producer.async_map_run import AsyncMapRun, LazySource
from producer.cancellation import prepare_cancel, read_cancel_reply
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS, asking, submitting
from producer.contract import GenerationRequest, GenerationResult
from producer.dead_letters import DeadLetter, LetterScan, found_letter, prepare_replay, replayed_job
from producer.jobs import CancelOutcome, JobOutcome, JobStatus, ModelDeclaration, Submission, job_id_of
from producer.outcome import answer, not_ready, status_of
from producer.registry import checked_name, read_models
from producer.result_feed import ResultFeed
from producer.submission import RESULT_SECONDS, Destination, RequestLike, as_request, enqueue_run, prepare, read_reply
from producer.window import Window


class AsyncProducer:
    """:class:`~producer.Producer` for one event loop; every method has the same meaning and errors.

    However many callers wait for results, they share one pub/sub connection. Close it (``async with``, or
    :meth:`aclose`) in the loop that used it.
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
        self._link = AsyncControlLink(
            redis_url,
            connect_timeout_seconds=connect_timeout_seconds,
            socket_timeout_seconds=socket_timeout_seconds,
        )
        self._destination = Destination(self._link.database, job_record_seconds, result_expires_seconds)
        self._feed = ResultFeed(self._link)

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self._feed.close()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def submit(self, request: GenerationRequest | None = None, /, **fields: Any) -> Submission:  # noqa: ANN401 - pydantic checks them
        """Queue one job; see :meth:`producer.Producer.submit`."""
        job = prepare(as_request(request, fields))
        with submitting(self._url):
            reply = await self._link.enqueue(enqueue_run([job], self._destination))
        return read_reply(job, reply)

    async def result(self, job: str | Submission, timeout_seconds: float | None = None) -> GenerationResult:
        """Wait for a job's result; see :meth:`producer.Producer.result`."""
        job_id = job_id_of(job)
        with asking(self._url):
            if timeout_seconds == 0:
                [has_record], [meta] = await self._link.presence([job_id])
            else:
                has_record, meta = await self._settled(job_id, timeout_seconds)
        result = answer(job_id, has_record=has_record, meta=meta)
        if result is None:
            raise not_ready(job_id)
        return result

    async def _settled(self, job_id: str, timeout_seconds: float | None) -> tuple[bool, bytes | None]:
        sighting = await self._feed.settled(job_id, timeout_seconds)
        if sighting is not None:
            return sighting
        if self._feed.trouble is not None:
            raise self._feed.trouble
        raise not_ready(job_id)

    async def status(self, job: str | Submission) -> JobStatus:
        """Where a job stands at this moment; see :meth:`producer.Producer.status`."""
        job_id = job_id_of(job)
        with asking(self._url):
            record, meta = await self._link.record_and_result(job_id)
        return status_of(job_id, record, meta)

    async def cancel(self, job: str | Submission) -> CancelOutcome:
        """Stop a job, queued or running; see :meth:`producer.Producer.cancel`."""
        with asking(self._url):
            reply = await self._link.cancel(prepare_cancel(job, self._destination))
        return read_cancel_reply(job_id_of(job), reply)

    async def map(
        self,
        requests: Iterable[RequestLike] | AsyncIterable[RequestLike],
        *,
        window: int = 1000,
        in_order: bool = True,
    ) -> AsyncGenerator[JobOutcome, None]:
        """Submit every request and yield every outcome; see :meth:`producer.Producer.map`."""
        run = AsyncMapRun(self._link, self._destination, LazySource(requests), Window(window, in_order=in_order))
        outcomes = run.outcomes()
        try:
            while True:
                with submitting(self._url):
                    outcome = await anext(outcomes, None)
                if outcome is None:
                    return
                yield outcome
        finally:
            await outcomes.aclose()

    async def models(self) -> dict[str, ModelDeclaration]:
        """The models that jobs may name; see :meth:`producer.Producer.models`."""
        with asking(self._url):
            return read_models(await self._link.models())

    async def declare_model(self, name: str) -> None:
        """Let jobs name this model before a worker has served it; see :meth:`producer.Producer.declare_model`."""
        with asking(self._url):
            await self._link.declare_model(checked_name(name))

    async def forget_model(self, name: str) -> bool:
        """Refuse further jobs for this model; see :meth:`producer.Producer.forget_model`."""
        with asking(self._url):
            return await self._link.forget_model(checked_name(name))

    async def dead_letters(self, limit: int = 100, offset: int = 0, model: str | None = None) -> list[DeadLetter]:
        """Dead letters, the latest first; see :meth:`producer.Producer.dead_letters`."""
        scan = LetterScan(limit, offset, model)
        with asking(self._url):
            while (places := scan.next_range) is not None:
                scan.take(await self._link.letters(*places))
        return scan.found

    async def dead_letter_ids(self) -> list[str]:
        """The ids of all dead letters, the latest first; see :meth:`producer.Producer.dead_letter_ids`."""
        with asking(self._url):
            return [letter_id.decode() for letter_id in await self._link.letter_ids(0, -1)]

    async def dead_letter(self, letter_id: str) -> DeadLetter:
        """One dead letter; see :meth:`producer.Producer.dead_letter`."""
        with asking(self._url):
            stored = await self._link.letter(letter_id)
        return found_letter(letter_id, stored)

    async def replay_dead_letter(self, letter_id: str) -> str:
        """Queue the letter's message again; see :meth:`producer.Producer.replay_dead_letter`."""
        while True:
            letter = await self.dead_letter(letter_id)
            run = prepare_replay(letter, self._destination)
            with asking(self._url):
                reply = await self._link.replay(run)
            if (job_id := replayed_job(letter, reply)) is not None:
                return job_id

    async def purge_dead_letters(self, letter_ids: Iterable[str]) -> int:
        """Remove these dead letters for good; see :meth:`producer.Producer.purge_dead_letters`."""
        with asking(self._url):
            return await self._link.purge(list(letter_ids))

    async def purge_all_dead_letters(self) -> int:
        """Remove every dead letter for good; see :meth:`producer.Producer.purge_all_dead_letters`."""
        with asking(self._url):
            return await self._link.purge_all()
