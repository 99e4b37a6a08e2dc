"""Many jobs in one request: a line of JSON each (NDJSON), and a line of the answer for each."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from producer.batch import BatchSubmitFailed
from producer.contract import MAX_MESSAGE_BYTES, GenerationRequest
from producer.errors import FleetError, FleetUnreachable, InvalidRequest
from producer.gateway.callers import Caller, Known
from producer.gateway.errors import NotAllowed, body, entry
from producer.gateway.metering import Desk
from producer.gateway.openai_routes import Fleet, KeyOfMany
from producer.jobs import SubmitOutcome
from producer.rate_limits import estimated_tokens
from producer.submission import as_request

BULK_PATH: Final = "/v1/jobs/bulk"
MEDIA_TYPE: Final = "application/x-ndjson"
MOST_JOBS: Final = 10_000
"""In one request: what became of each is told at its end, and is kept until then."""
MOST_BYTES: Final = 256 * 1024 * 1024
SENT_TOO_MUCH: Final = (
    f"from this job on nothing was read: a request has at most {MOST_JOBS:,} jobs and {MOST_BYTES // 2**20:,} MiB, and "
    f"a job {MAX_MESSAGE_BYTES // 2**20} MiB; send the rest in another one"
)
UNSETTLED: Final = "queued or not, whole or not at all: send the request again with its Idempotency-Key"

router = APIRouter()


@router.post(
    BULK_PATH,
    openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def submit_bulk(request: Request, fleet: Fleet, caller: Known, idempotency_key: KeyOfMany = None) -> Response:
    """Queue a job for each line, a ``GenerationRequest``; they are queued while the body is still on its way.

    The answer has a line for each: its ``index`` among the jobs, from 0, and ``id`` or ``error``. With an
    ``Idempotency-Key`` each job has one of its own (``KEY/index``), so that the whole request may be sent again.
    """
    given = type_of(request)
    if given != MEDIA_TYPE:
        raise InvalidRequest(f"Content-Type: {MEDIA_TYPE}, a job on each line; not {given or 'nothing'}")
    reader = Reader(request, caller, Desk(request), idempotency_key)
    status = HTTPStatus.OK
    try:
        outcomes, unsettled = await fleet.submit_many(reader.jobs()), 0
    except BatchSubmitFailed as error:
        outcomes, unsettled, status = error.outcomes, len(error.unsettled), HTTPStatus.SERVICE_UNAVAILABLE
    await reader.settle(outcomes)
    lines = reader.lines(outcomes, unsettled)
    if reader.is_cut and status is HTTPStatus.OK:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Response(b"".join(orjson.dumps(line) + b"\n" for line in lines), status, media_type=MEDIA_TYPE)


def type_of(request: Request) -> str:
    """The media type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass
class Reader:
    """Reads jobs from a body as it comes, and remembers the lines that are none."""

    request: Request
    caller: Caller
    desk: Desk
    idempotency_key: str | None
    is_cut: bool = False
    """Something was left unread."""
    _count: int = 0
    _bytes: int = 0
    _accepted: list[int] = field(default_factory=list)
    """The index of each job that was given out."""
    _tokens: list[int] = field(default_factory=list)
    """What each of them may take, as its key was charged."""
    _refused: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The error's body by index."""

    async def jobs(self) -> AsyncIterator[GenerationRequest]:
        """The jobs that may be queued."""
        async for line in self._split():
            if not line.strip():
                continue
            index, self._count = self._count, self._count + 1
            if index == MOST_JOBS:
                self._cut(index)
                return
            try:
                job = self._job(line, index)
                await self.desk.charge([job])
            except FleetError as error:
                self._refused[index] = entry(error)
            except NotAllowed as error:
                self._refused[index] = _not_allowed(error)
            else:
                self._accepted.append(index)
                self._tokens.append(estimated_tokens(job))
                yield job

    def _job(self, line: bytes, index: int) -> GenerationRequest:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"this line is not JSON: {error}") from error
        job = self.caller.own(as_request(fields))
        if self.idempotency_key is not None and job.idempotency_key is None:
            return job.model_copy(update={"idempotency_key": f"{self.idempotency_key}/{index}"})
        return job

    async def _split(self) -> AsyncIterator[bytes]:
        pending = bytearray()
        try:
            async for chunk in self.request.stream():
                self._bytes += len(chunk)
                pending += chunk
                *whole, rest = pending.split(b"\n") if b"\n" in chunk else [pending]
                for line in whole:
                    yield bytes(line)
                pending = bytearray(rest)
                if len(pending) > MAX_MESSAGE_BYTES or self._bytes > MOST_BYTES:
                    self._cut(self._count)
                    return
        except ClientDisconnect:
            return  # what came before it is queued
        yield bytes(pending)

    def _cut(self, index: int) -> None:
        self.is_cut = True
        self._refused[index] = body(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, SENT_TOO_MUCH, code="too_large")

    async def settle(self, outcomes: Sequence[SubmitOutcome]) -> None:
        """Give back the tokens of lines that made no job: refused ones, and jobs that were there before."""
        told = zip(self._tokens, outcomes, strict=False)
        unused = sum(tokens for tokens, end in told if end.submission is None or end.submission.duplicate)
        if unused:
            await self.desk.settle(sum(self._tokens) - unused)

    def lines(self, outcomes: Sequence[SubmitOutcome], unsettled: int) -> list[dict[str, Any]]:
        """The answer's lines, in the order of the jobs."""
        told = {index: {"index": index} | error for index, error in self._refused.items()}
        for index, outcome in zip(self._accepted, outcomes, strict=False):
            told[index] = {"index": index} | _became(outcome)
        settled = len(outcomes)
        for index in self._accepted[settled : settled + unsettled]:
            told[index] = {"index": index} | entry(FleetUnreachable(UNSETTLED))
        return [told[index] for index in sorted(told)]


def _not_allowed(error: NotAllowed) -> dict[str, Any]:
    content = body(error.status, str(error), code=error.code)
    if error.status == HTTPStatus.TOO_MANY_REQUESTS and error.retry_after_seconds is not None:
        return content | {"retry_after_seconds": error.retry_after_seconds}
    return content


def _became(outcome: SubmitOutcome) -> dict[str, Any]:
    if outcome.submission is None:
        return entry(outcome.error or FleetError("it was not queued"))
    job = outcome.submission
    return {"id": job.job_id, "enqueued_at": job.enqueued_at, "duplicate": job.duplicate}
