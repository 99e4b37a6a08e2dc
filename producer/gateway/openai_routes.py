"""OpenAI's API: chat completions, completions, models."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from producer.async_client import AsyncProducer
from producer.contract import GenerationRequest
from producer.errors import FleetError, UnknownModel
from producer.gateway.callers import Known
from producer.gateway.errors import body, of_fleet
from producer.gateway.metering import Desk
from producer.gateway.openai_requests import ChatRequest, Common, CompletionRequest
from producer.gateway.openai_responses import DONE, RESTARTED, Chunks, Head, whole
from producer.gateway.several_prompts import answered_together
from producer.gateway.together import MOST_KEY_CHARACTERS, keyed
from producer.gateway.translation import chat_job, completion_jobs
from producer.gateway.waiting import CLIENT_CLOSED_REQUEST, ClientGone, Events, EventStream, awaited, begun, event
from producer.jobs import ModelDeclaration, Submission
from producer.prompting import MAX_NAME_CHARACTERS
from producer.stream_reading import StreamDelta, StreamEnded, StreamEvent, StreamRestarted

router = APIRouter(prefix="/v1")


def producer_of(request: Request) -> AsyncProducer:
    """The app's producer."""
    producer: AsyncProducer = request.app.state.producer
    return producer


Fleet = Annotated[AsyncProducer, Depends(producer_of)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=MAX_NAME_CHARACTERS)]
KeyOfMany = Annotated[str | None, Header(min_length=1, max_length=MOST_KEY_CHARACTERS)]
"""Of many jobs in one request: each has its place behind it, and all of that is to be a job's key."""


@router.post("/chat/completions")
async def chat_completions(
    asked: ChatRequest, request: Request, fleet: Fleet, caller: Known, idempotency_key: IdempotencyKey = None
) -> Response:
    """Answer a conversation's next turn; the model's own chat template is rendered where its tokenizer is."""
    job = caller.own_for(chat_job(asked), asked.user).model_copy(update={"idempotency_key": idempotency_key})
    return await _answered(job, asked, request, fleet)


@router.post("/completions")
async def completions(
    asked: CompletionRequest, request: Request, fleet: Fleet, caller: Known, idempotency_key: IdempotencyKey = None
) -> Response:
    """Go on from a prompt, or from each of several: each is a job, and together they have one answer."""
    jobs = [caller.own_for(job, asked.user) for job in completion_jobs(asked)]
    if len(jobs) > 1:
        return await answered_together(keyed(jobs, idempotency_key), asked, request, fleet)
    return await _answered(jobs[0].model_copy(update={"idempotency_key": idempotency_key}), asked, request, fleet)


async def _answered(job: GenerationRequest, asked: Common, request: Request, fleet: AsyncProducer) -> Response:
    desk = Desk(request)
    submission = await desk.submit(job)
    head = Head(submission.job_id, job.model, int(time.time()), is_chat=isinstance(asked, ChatRequest))
    if job.stream:
        told = await begun(desk.settling(fleet.stream(submission)))
        cancel = partial(_cancel, fleet, submission, job.idempotency_key)
        return EventStream(_events(told, Chunks(head, with_usage=asked.wants_usage), cancel), cancel)
    try:
        result = await awaited(request, fleet, submission, is_shared=job.idempotency_key is not None)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    await desk.settle(result.usage.total_tokens)
    return JSONResponse(whole(head, result))


async def _cancel(fleet: AsyncProducer, job: Submission, idempotency_key: str | None) -> None:
    # Whoever names a job by a key may come back for it, or be there twice.
    if idempotency_key is None:
        await fleet.cancel(job)


async def _events(
    told: AsyncGenerator[StreamEvent, None], chunks: Chunks, cancel: Callable[[], Awaitable[None]]
) -> Events:
    """As OpenAI streams them. Its protocol can not take text back, so an answer that begins anew is an error."""
    try:
        async with aclosing(told):
            async for news in told:
                match news:
                    case StreamDelta():
                        yield event(chunks.deltas(news.choices), event_id=news.position)
                    case StreamRestarted() if chunks.has_said:
                        await cancel()
                        yield event(body(500, RESTARTED, code="restarted"))
                        return
                    case StreamEnded():
                        if chunks.with_usage:
                            yield event(chunks.usage(news.result.usage), event_id=news.position)
                        yield DONE
    except FleetError as error:
        yield event(of_fleet(error)[1])


@router.get("/models")
async def models(fleet: Fleet, _: Known) -> dict[str, Any]:
    """Every model that jobs may name."""
    known, aliases = await fleet.models(), await fleet.aliases()
    own = [_model(name, declared) for name, declared in known.items()]
    others = [_model(alias, known[name], root=name) for alias, name in aliases.items() if name in known]
    return {"object": "list", "data": own + others}


@router.get("/models/{name:path}")
async def model(name: str, fleet: Fleet, _: Known) -> dict[str, Any]:
    """One of them."""
    known = await fleet.models()
    root = name if name in known else (await fleet.aliases()).get(name, name)
    if root not in known:
        raise UnknownModel(name, known)
    return _model(name, known[root], root=root)


def _model(name: str, declared: ModelDeclaration, *, root: str | None = None) -> dict[str, Any]:
    """As OpenAI has it; ``root``, which is vLLM's, names the model whose other name this is."""
    fields = {"id": name, "object": "model", "created": int(declared.since), "owned_by": declared.declared_by}
    return fields | {"root": root or name}
