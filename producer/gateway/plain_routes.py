"""The plain API: one prompt or several, and their texts; for callers that know nothing of OpenAI's."""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Len
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from producer.contract import FailureCode, GenerationRequest, GenerationResult, Priority
from producer.errors import FleetError, InferenceFailed
from producer.gateway.callers import Known
from producer.gateway.errors import entry
from producer.gateway.metering import Desk
from producer.gateway.openai_requests import MOST_PROMPTS, OpenAIModel, OutputTokens, Stops
from producer.gateway.openai_responses import finish_reason
from producer.gateway.openai_routes import Fleet, IdempotencyKey, KeyOfMany
from producer.gateway.presence_routes import the_model
from producer.gateway.together import keyed, last_with_room, submitted
from producer.gateway.waiting import CLIENT_CLOSED_REQUEST, ClientGone, awaited, awaited_all
from producer.jobs import SubmitOutcome
from producer.outcome import Outcome
from producer.prompting import Name
from producer.submission import as_request

Prompt = Annotated[str, Field(min_length=1)]

router = APIRouter()


class Sampling(OpenAIModel):
    """How to answer; what is left out is the fleet's default."""

    model: Name | None = None
    """May be left out where the fleet knows only one."""
    max_tokens: OutputTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Stops | None = None


class GenerateRequest(Sampling):
    """``POST /generate``."""

    prompt: Prompt


class BatchGenerateRequest(Sampling):
    """``POST /batch_generate``: the prompts are answered alike."""

    prompts: Annotated[list[Prompt], Len(min_length=1, max_length=MOST_PROMPTS)]


def _job(asked: Sampling, model: str, prompt: str, priority: Priority) -> GenerationRequest:
    sampling: dict[str, Any] = asked.model_dump(include={"max_tokens", "temperature", "top_p"}, exclude_none=True)
    if asked.stop is not None:
        sampling["stop"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    return as_request({"model": model, "prompt": prompt, "sampling": sampling, "priority": priority})


@router.post("/generate")
async def generate(
    asked: GenerateRequest, request: Request, fleet: Fleet, caller: Known, idempotency_key: IdempotencyKey = None
) -> Response:
    """Answer one prompt."""
    desk = Desk(request)
    job = caller.own(_job(asked, await the_model(fleet, asked.model), asked.prompt, Priority.INTERACTIVE))
    submission = await desk.submit(job.model_copy(update={"idempotency_key": idempotency_key}))
    try:
        result = await awaited(request, fleet, submission, is_shared=idempotency_key is not None)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    await desk.settle(result.usage.total_tokens)
    return JSONResponse({"id": submission.job_id} | _answer(result))


@router.post("/batch_generate")
async def batch_generate(
    asked: BatchGenerateRequest, request: Request, fleet: Fleet, caller: Known, idempotency_key: KeyOfMany = None
) -> Response:
    """Answer several prompts, in their order; one that fails has ``error`` in its place, the others their texts.

    Where the queue had room for none of them, nothing is answered but that.
    """
    model = await the_model(fleet, asked.model)
    jobs = keyed([caller.own(_job(asked, model, prompt, Priority.NORMAL)) for prompt in asked.prompts], idempotency_key)
    desk = Desk(request)
    outcomes = await submitted(fleet, desk, jobs, is_shared=idempotency_key is not None)
    if (full := last_with_room([outcome.error for outcome in outcomes])) is not None:
        await desk.settle(0)
        raise full
    queued = [outcome.submission for outcome in outcomes if outcome.submission is not None]
    try:
        ended = await awaited_all(request, fleet, queued, is_shared=idempotency_key is not None)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    await desk.settle(sum(end.usage.total_tokens for end in ended.values() if isinstance(end, GenerationResult)))
    return JSONResponse({"results": [_result(outcome, ended) for outcome in outcomes]})


def _result(outcome: SubmitOutcome, ended: Mapping[str, Outcome]) -> dict[str, Any]:
    if outcome.submission is None:
        return _failed(outcome.error or InferenceFailed(FailureCode.INTERNAL, "it was not queued"))
    job_id = outcome.submission.job_id
    end = ended[job_id]
    said = _answer(end) if isinstance(end, GenerationResult) else _failed(InferenceFailed(end.code, end.message))
    return {"id": job_id} | said


def _answer(result: GenerationResult) -> dict[str, Any]:
    choice = result.choices[0]
    return {
        "model": result.model,
        "text": choice.text,
        "tokens_generated": choice.token_count,
        "finish_reason": finish_reason(choice.finish_reason),
    }


def _failed(error: FleetError) -> dict[str, Any]:
    return entry(error)
