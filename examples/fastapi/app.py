"""Answers as a JSON API: ask, look, wait, follow, cancel. Nothing here blocks, so one process serves thousands."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from producer import (
    AsyncProducer,
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    QueueFull,
    ResultExpired,
    ResultNotReady,
    StreamDelta,
    StreamEnded,
    StreamRestarted,
    UnknownModel,
)

REDIS_URL = os.environ.get("FLEET_REDIS_URL", "redis://127.0.0.1:6379/0")
MODEL = os.environ["FLEET_MODEL"]
STREAM_SECONDS = float(os.environ.get("STREAM_SECONDS", "50"))
"""Below the minute after which proxies cut silent connections: a browser that is still there comes back by itself."""

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """One producer for the process, in its event loop; it connects when the first request needs it."""
    async with AsyncProducer(REDIS_URL) as producer:
        yield {"producer": producer}


def producer_of(request: Request) -> AsyncProducer:
    """The one that ``lifespan`` made."""
    producer: AsyncProducer = request.state.producer
    return producer


Fleet = Annotated[AsyncProducer, Depends(producer_of)]

app = FastAPI(title="Answers", lifespan=lifespan)


class Question(BaseModel):
    """What a caller asks."""

    prompt: str = Field(min_length=1, max_length=20_000)
    max_tokens: int = 512


@app.post("/answers", status_code=202)
async def ask(
    question: Question, producer: Fleet, response: Response, idempotency_key: Annotated[str, Header()]
) -> dict[str, Any]:
    """Queue the question and answer at once. The key is the caller's: sent again, it names the same job."""
    job = await producer.submit(
        model=MODEL,
        messages=[{"role": "user", "content": question.prompt}],
        sampling={"max_tokens": question.max_tokens},
        priority="interactive",
        stream=True,
        idempotency_key=idempotency_key,
    )
    response.headers["Location"] = f"/answers/{job.job_id}"
    return {"id": job.job_id, "duplicate": job.duplicate}


@app.get("/answers/{job_id}")
async def look(job_id: str, producer: Fleet, wait: Annotated[float, Query(ge=0, le=30)] = 0) -> JSONResponse:
    """The answer; 202 and the state while there is none, after waiting for so many seconds."""
    try:
        result = await producer.result(job_id, timeout_seconds=wait)
    except ResultNotReady:
        return JSONResponse({"state": (await producer.status(job_id)).state}, 202)
    except InferenceFailed as error:
        state = (await producer.status(job_id)).state  # failed or cancelled
        return JSONResponse({"state": state, "code": error.code, "retryable": error.retryable})
    return JSONResponse({"state": "succeeded", "text": result.text, "tokens": result.usage.total_tokens})


@app.get("/answers/{job_id}/events")
async def follow(job_id: str, producer: Fleet, last_event_id: Annotated[str, Header()] = "") -> StreamingResponse:
    """Events ``delta``, ``restarted`` (forget all text so far), ``ended`` and ``failed``.

    Who leaves does not cancel the job: that is what DELETE is for.
    """
    await producer.status(job_id)  # 404 and 503 are said here: later the status was sent already
    told = events(producer, job_id, after=last_event_id)
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def events(producer: AsyncProducer, job_id: str, after: str) -> AsyncIterator[str]:
    """What the job says from the position ``after`` on, as server-sent events."""
    yield "retry: 1000\n\n"
    try:
        async with aclosing(producer.stream(job_id, after=after, timeout_seconds=STREAM_SECONDS)) as told:
            async for event in told:
                match event:
                    case StreamDelta(position, choices):
                        yield server_sent("delta", {"text": choices[0].text}, position)
                    case StreamRestarted(position):
                        yield server_sent("restarted", {}, position)
                    case StreamEnded(position):
                        yield server_sent("ended", {}, position)
    except (ResultNotReady, FleetUnreachable):
        return  # the browser comes back with the id of the last event that it has
    except FleetError as error:
        yield server_sent("failed", {"message": refusal(error)[1]})


def server_sent(name: str, data: dict[str, str], position: str = "") -> str:
    """One event (HTML standard, section 9.2); JSON has no line breaks that would end it early."""
    event_id = f"id: {position}\n" if position else ""
    return f"{event_id}event: {name}\ndata: {json.dumps(data)}\n\n"


@app.delete("/answers/{job_id}")
async def cancel(job_id: str, producer: Fleet) -> dict[str, str]:
    """Stop it, queued or running; the outcome is ``cancelled``, ``already_cancelled`` or ``ended``."""
    return {"outcome": await producer.cancel(job_id)}


@app.exception_handler(FleetError)
async def refuse(_: Request, error: FleetError) -> JSONResponse:
    """Everything that the fleet raises and no handler above expects."""
    status, sentence = refusal(error)
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    return JSONResponse({"message": sentence}, status, {"Retry-After": "30"} if status == 503 else None)


def refusal(error: FleetError) -> tuple[int, str]:
    """Status and sentence for the caller. The errors' own words are the operator's: they name addresses and models."""
    match error:
        case InvalidRequest():
            return 400, str(error)
        case ResultExpired():
            return 404, "There is no such answer, or not any more."
        case QueueFull():
            return 503, "Too many questions are waiting. Please try again in a minute."
        case UnknownModel() | FleetUnreachable():
            return 503, "No questions are taken at the moment. Please try again in a minute."
        case InferenceFailed():
            return error.code.http_status, f"There is no answer: {error.code}."
    return 500, "Something went wrong."
