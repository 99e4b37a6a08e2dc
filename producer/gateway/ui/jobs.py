"""Jobs: listed, one of them with its timeline, cancelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from producer.async_client import AsyncProducer
from producer.contract import FailureCode, GenerationResult
from producer.errors import InferenceFailed, ResultExpired, ResultNotReady, UnknownDeadLetter
from producer.gateway import jobs_routes
from producer.gateway.callers import ANYBODY
from producer.gateway.ui.forms import form_of
from producer.gateway.ui.rendering import page, query
from producer.job_list import ALL_TENANTS
from producer.jobs import AttemptEnd, JobState, JobStatus
from producer.queue_place import WaitReason

PAGE_JOBS: Final = 50
MOST_SHOWN: Final = 200_000
"""Characters of an answer."""
BAR_WIDTH: Final = 1_000
NO_TENANT: Final = "none"
LIVE_STATES: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.RETRYING})

REASONS: Final = {
    WaitReason.NO_READY_WORKER: "No worker is ready for its model.",
    WaitReason.NEXT_ATTEMPT: "An attempt found no room; the next one is not due.",
    WaitReason.TENANT_LIMIT: "Its tenant has as many jobs running as it may have.",
    WaitReason.JOBS_BEFORE: "Other jobs go before it.",
    WaitReason.WORKERS_BUSY: "It is next; every ready worker has jobs running.",
    WaitReason.STARTING: "A worker takes it at this moment.",
}
ENDS: Final = {
    AttemptEnd.RUNNING: "It runs.",
    AttemptEnd.SUCCEEDED: "It answered.",
    AttemptEnd.FAILED: "It failed.",
    AttemptEnd.CANCELLED: "It was cancelled.",
    AttemptEnd.LOST: "It was lost with its worker.",
    AttemptEnd.INTERRUPTED: "It was interrupted.",
    AttemptEnd.PUT_OFF: "There was no room.",
    AttemptEnd.HANDED_BACK: "It was handed back: its worker was stopped.",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a job's time, and where it is in a bar of :data:`BAR_WIDTH`."""

    name: str
    """``waiting``, ``first-token`` or ``generating``."""
    label: str
    seconds: float
    x: float
    width: float


async def show_list(request: Request) -> Response:
    """A page of listed jobs, the latest first."""
    fleet: AsyncProducer = request.app.state.producer
    asked = request.query_params
    tenant = asked.get("tenant") or None
    is_without = asked.get("without") == NO_TENANT
    state = JobState(asked["state"]) if asked.get("state") in set(JobState) else None
    owner = None if is_without else tenant or ALL_TENANTS
    found = await fleet.jobs(owner, state=state, limit=PAGE_JOBS, after=asked.get("after") or None)
    return page(
        request,
        "jobs.html",
        jobs=found.jobs,
        after=found.after,
        is_first=not asked.get("after"),
        tenant=tenant,
        is_without=is_without,
        state=state,
        states=list(JobState),
    )


async def show_job(request: Request) -> Response:
    """Its timeline and its answer, or what of the page changes."""
    fleet: AsyncProducer = request.app.state.producer
    job_id = request.query_params.get("id", "").strip()
    status = await fleet.status(job_id)
    values: dict[str, Any] = {
        "job": status,
        "is_live": status.state in LIVE_STATES,
        "segments": segments(status),
        "bar_width": BAR_WIDTH,
        "place": await fleet.queue_place(status),
        "reasons": REASONS,
        "ends": ENDS,
        "letter": await _letter(fleet, status),
    }
    if "live" in request.query_params:
        return page(request, "job_live.html", **values)
    result = await _result(fleet, status)
    return page(request, "job.html", result=result, most_shown=MOST_SHOWN, **values)


async def _result(fleet: AsyncProducer, status: JobStatus) -> GenerationResult | None:
    if status.state is not JobState.SUCCEEDED:
        return None
    try:
        return await fleet.result(status.job_id, timeout_seconds=0)
    except (InferenceFailed, ResultExpired, ResultNotReady):  # it changed since
        return None


async def _letter(fleet: AsyncProducer, status: JobStatus) -> str | None:
    """The dead letter that a job ended as."""
    if status.failure is None or status.failure.code is not FailureCode.POISONED:
        return None
    try:
        return (await fleet.dead_letter(status.job_id)).letter_id
    except UnknownDeadLetter:
        return None


async def cancel(request: Request) -> Response:
    """Stop it, queued or running."""
    job_id = (await form_of(request)).get("id", "")
    fleet: AsyncProducer = request.app.state.producer
    await fleet.status(job_id)
    outcome = await fleet.cancel(job_id)
    where = query(id=job_id, notice=outcome.value)
    return RedirectResponse(f"{request.scope['root_path']}/job{where}", HTTPStatus.SEE_OTHER)


async def events(request: Request) -> Response:
    """Follow its answer: the gateway's own events, for who has a cookie and no key."""
    fleet: AsyncProducer = request.app.state.producer
    last = request.headers.get("last-event-id")
    return await jobs_routes.events(request.query_params.get("id", ""), fleet, ANYBODY, last)


def segments(status: JobStatus) -> Sequence[Segment]:
    """Where an ended job's time went."""
    parts = [(name, label, seconds) for name, label, seconds in _parts(status) if seconds is not None and seconds >= 0]
    total = sum(seconds for _, _, seconds in parts)
    found: list[Segment] = []
    x = 0.0
    for name, label, seconds in parts:
        width = BAR_WIDTH * seconds / total if total else 0.0
        found.append(Segment(name, label, seconds, round(x, 1), round(width, 1)))
        x += width
    return found


def _parts(status: JobStatus) -> list[tuple[str, str, float | None]]:
    timings = status.timings
    if timings is not None:
        first = timings.first_token_seconds
        return [
            ("waiting", "Waiting in the queue", timings.queued_seconds),
            ("first-token", "To the first token", first),
            ("generating", "Generating", timings.total_seconds - (first or 0.0)),
        ]
    if status.started_at is None or status.ended_at is None:
        return []
    waited = None if status.enqueued_at is None else status.started_at - status.enqueued_at
    return [
        ("waiting", "Until its last start", waited),
        ("generating", "From there to its end", status.ended_at - status.started_at),
    ]
