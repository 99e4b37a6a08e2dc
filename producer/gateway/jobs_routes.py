"""Jobs over HTTP: submit now, ask later, follow from anywhere."""

from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from producer.contract import GenerationRequest
from producer.errors import FleetError, InvalidRequest, ResultNotReady
from producer.gateway.callers import Known, seen
from producer.gateway.errors import RETRY_AFTER_SECONDS, of_fleet
from producer.gateway.openai_routes import Fleet, IdempotencyKey
from producer.gateway.waiting import Events, EventStream, begun, event
from producer.jobs import JobStatus
from producer.stream_reading import StreamDelta, StreamEnded

MOST_WAIT_SECONDS: Final = 300.0

router = APIRouter(prefix="/v1/jobs")


@router.post("", status_code=202)
async def submit(
    job: GenerationRequest, fleet: Fleet, caller: Known, response: Response, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Queue a job; the same ``Idempotency-Key`` names the same job."""
    if idempotency_key is not None:
        if job.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest("the header Idempotency-Key and the field idempotency_key differ: give one of them")
        job = job.model_copy(update={"idempotency_key": idempotency_key})
    submission = await fleet.submit(caller.own(job))
    response.headers["Location"] = f"/v1/jobs/{submission.job_id}"
    return {"id": submission.job_id, "enqueued_at": submission.enqueued_at, "duplicate": submission.duplicate}


@router.get("/{job_id}")
async def status(job_id: str, fleet: Fleet, caller: Known) -> dict[str, Any]:
    """Where a job stands; times are seconds since the epoch."""
    return _status(await seen(fleet, caller, job_id))


@router.delete("/{job_id}")
async def cancel(job_id: str, fleet: Fleet, caller: Known) -> dict[str, Any]:
    """Stop it, queued or running; the outcome is ``cancelled``, ``already_cancelled`` or ``ended``."""
    await seen(fleet, caller, job_id)
    return {"id": job_id, "outcome": (await fleet.cancel(job_id)).value}


@router.get("/{job_id}/result")
async def result(
    job_id: str, fleet: Fleet, caller: Known, wait: Annotated[float, Query(ge=0, le=MOST_WAIT_SECONDS)] = 0
) -> JSONResponse:
    """The answer, waited for so many seconds; 202 while there is none, and the job's own error where it failed."""
    await seen(fleet, caller, job_id)
    try:
        answer = await fleet.result(job_id, timeout_seconds=wait)
    except ResultNotReady:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return JSONResponse(_status(await fleet.status(job_id)), 202, headers)
    return JSONResponse(answer.model_dump(mode="json"))


@router.get("/{job_id}/events")
async def events(
    job_id: str,
    fleet: Fleet,
    caller: Known,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[str, Query(description="As the header Last-Event-ID, for who can not set it.")] = "",
) -> EventStream:
    """Follow the answer: events ``delta``, ``restarted`` (forget all text so far), ``ended``, ``error``.

    Each has an id; ``Last-Event-ID`` goes on from there. A reader that leaves does not cancel the job.
    """
    await seen(fleet, caller, job_id)
    told = await begun(fleet.stream(job_id, after=last_event_id or after))

    async def sent() -> Events:
        try:
            async with aclosing(told):
                async for news in told:
                    match news:
                        case StreamDelta():
                            choices = [
                                asdict(choice) | {"logprobs": _dumped(choice.logprobs)} for choice in news.choices
                            ]
                            yield event({"choices": choices}, name="delta", event_id=news.position)
                        case StreamEnded():
                            yield event(news.result.model_dump(mode="json"), name="ended", event_id=news.position)
                        case _:
                            yield event({}, name="restarted", event_id=news.position)
        except FleetError as error:
            yield event(of_fleet(error)[1], name="error")

    return EventStream(sent(), _nothing)


async def _nothing() -> None:
    """The job is not this reader's alone."""


def _dumped(logprobs: Any) -> list[Any] | None:  # noqa: ANN401 - a tuple of the contract's, or None
    return None if logprobs is None else [one.model_dump() for one in logprobs]


def _status(known: JobStatus) -> dict[str, Any]:
    return {
        "id": known.job_id,
        "state": known.state.value,
        "model": known.model,
        "tenant": known.tenant,
        "enqueued_at": known.enqueued_at,
        "started_at": known.started_at,
        "worker": known.worker,
        "failure": known.failure.model_dump(mode="json") if known.failure else None,
    }
