"""Jobs over HTTP: submit now, ask later, follow from anywhere."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from producer.contract import GenerationRequest
from producer.errors import FleetError, InvalidRequest, ResultNotReady
from producer.gateway.callers import Known, seen
from producer.gateway.errors import RETRY_AFTER_SECONDS, NotAllowed, of_fleet
from producer.gateway.metering import AtDesk
from producer.gateway.openai_requests import OpenAIModel
from producer.gateway.openai_routes import Fleet, IdempotencyKey
from producer.gateway.waiting import CLIENT_CLOSED_REQUEST, ClientGone, Events, EventStream, begun, event, unless_gone
from producer.job_list import ALL_TENANTS, MOST_IN_PAGE
from producer.jobs import JobAttempt, JobState, JobStatus
from producer.prompting import MAX_NAME_CHARACTERS
from producer.stream_reading import ChoiceDelta, StreamDelta, StreamEnded
from producer.strict import WireModel

MOST_WAIT_SECONDS: Final = 300.0

router = APIRouter(prefix="/v1/jobs")


class ListQuery(OpenAIModel):
    """Which jobs to list."""

    tenant: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)] | None = None
    state: JobState | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_IN_PAGE)] = 100
    after: str | None = None


@router.post("", status_code=202)
async def submit(
    job: GenerationRequest, desk: AtDesk, caller: Known, response: Response, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Queue a job; the same ``Idempotency-Key`` names the same job."""
    if idempotency_key is not None:
        if job.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest("the header Idempotency-Key and the field idempotency_key differ: give one of them")
        job = job.model_copy(update={"idempotency_key": idempotency_key})
    submission = await desk.submit(caller.own(job))
    response.headers["Location"] = f"/v1/jobs/{submission.job_id}"
    return {"id": submission.job_id, "enqueued_at": submission.enqueued_at, "duplicate": submission.duplicate}


@router.get("")
async def listed(fleet: Fleet, caller: Known, asked: Annotated[ListQuery, Query()]) -> dict[str, Any]:
    """Jobs that came in over HTTP, the latest first, in pages: ``last_id`` given back as ``after`` goes on.

    A tenant's key sees its own; an operator those of all, or of ``tenant`` (empty: of no tenant).
    """
    if asked.tenant is None:
        tenant = ALL_TENANTS if caller.is_operator else caller.tenant
    elif caller.is_operator or asked.tenant == caller.tenant:
        tenant = asked.tenant or None
    else:
        raise NotAllowed(HTTPStatus.FORBIDDEN, "wrong_tenant", "this key sees its own tenant's jobs only")
    page = await fleet.jobs(tenant, state=asked.state, limit=asked.limit, after=asked.after)
    data = [_status(known) for known in page.jobs]
    return {"object": "list", "data": data, "has_more": page.after is not None, "last_id": page.after}


@router.get("/{job_id}")
async def status(job_id: str, fleet: Fleet, caller: Known) -> dict[str, Any]:
    """Where a job stands; times are seconds since the epoch. One that waits has ``queue``: its place, and why.

    ``attempts`` are all of them, the first one first: who began each and when, and how it ended.
    """
    known = await seen(fleet, caller, job_id)
    place = await fleet.queue_place(known)
    return _status(known) | {
        "usage": known.usage.model_dump() if known.usage else None,
        "timings": known.timings.model_dump() if known.timings else None,
        "queue": asdict(place) if place else None,
        "attempts": [_attempt(one) for one in known.attempts],
    }


@router.delete("/{job_id}")
async def cancel(job_id: str, fleet: Fleet, caller: Known) -> dict[str, Any]:
    """Stop it, queued or running; the outcome is ``cancelled``, ``already_cancelled`` or ``ended``."""
    await seen(fleet, caller, job_id)
    return {"id": job_id, "outcome": (await fleet.cancel(job_id)).value}


@router.get("/{job_id}/result")
async def result(
    job_id: str,
    request: Request,
    fleet: Fleet,
    caller: Known,
    wait: Annotated[float, Query(ge=0, le=MOST_WAIT_SECONDS)] = 0,
) -> Response:
    """The answer, waited for so many seconds; 202 while there is none, and the job's own error where it failed."""
    await seen(fleet, caller, job_id)
    try:
        answer = await unless_gone(request.receive, fleet.result(job_id, timeout_seconds=wait))
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
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
                            yield event(
                                {"choices": [_choice(choice) for choice in news.choices]},
                                name="delta",
                                event_id=news.position,
                            )
                        case StreamEnded():
                            yield event(news.result.model_dump(mode="json"), name="ended", event_id=news.position)
                        case _:
                            yield event({}, name="restarted", event_id=news.position)
        except FleetError as error:
            yield event(of_fleet(error)[1], name="error")

    return EventStream(sent(), _nothing)


async def _nothing() -> None:
    """The job is not this reader's alone."""


def _choice(delta: ChoiceDelta) -> dict[str, Any]:
    calls = {} if delta.tool_calls is None else {"tool_calls": _dumped(delta.tool_calls)}
    return {
        "index": delta.index,
        "text": delta.text,
        "finish_reason": delta.finish_reason,
        "logprobs": None if delta.logprobs is None else _dumped(delta.logprobs),
    } | calls


def _dumped(contents: Sequence[WireModel]) -> list[Any]:
    return [one.model_dump() for one in contents]


def _attempt(one: JobAttempt) -> dict[str, Any]:
    # Not its reason: that is an operator's, and may tell more of the fleet than a tenant is to know.
    return {name: value for name, value in asdict(one).items() if name != "reason"}


def _status(known: JobStatus) -> dict[str, Any]:
    return {
        "id": known.job_id,
        "state": known.state.value,
        "model": known.model,
        "tenant": known.tenant,
        "priority": known.priority,
        "enqueued_at": known.enqueued_at,
        "started_at": known.started_at,
        "ended_at": known.ended_at,
        "worker": known.worker,
        "attempt": known.attempt,
        "failure": known.failure.model_dump(mode="json") if known.failure else None,
    }
