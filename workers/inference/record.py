"""Step 5: the contract's result of what the engine said."""

from producer.contract import Choice, GenerationRequest, GenerationResult, Timings, Usage
from workers.inference.delivery import Delivery
from workers.inference.generate import Gathered


def record(
    delivery: Delivery, request: GenerationRequest, gathered: Gathered, *, worker: str, finished_at: float
) -> GenerationResult:
    """The answer to a job.

    Args:
        delivery: what was delivered.
        request: what was asked.
        gathered: what the engine said.
        worker: Celery node name of this worker.
        finished_at: seconds since the epoch.
    """
    choices = tuple(
        Choice.model_validate(
            {
                "index": index,
                "text": choice.text,
                "token_count": choice.token_count,
                "finish_reason": choice.finish_reason,
                "logprobs": choice.logprobs,
                "tool_calls": choice.tool_calls,
            }
        )
        for index, choice in sorted(gathered.choices.items())
    )
    return GenerationResult(
        id=delivery.job_id,
        model=request.model,
        choices=choices,
        usage=Usage(
            prompt_tokens=gathered.prompt_tokens,
            completion_tokens=gathered.completion_tokens,
            cached_tokens=gathered.cached_tokens,
        ),
        timings=Timings(
            queued_seconds=delivery.queued_seconds,
            first_token_seconds=gathered.first_token_seconds,
            total_seconds=max(0.0, finished_at - delivery.received_at),
        ),
        worker=worker,
        attempt=delivery.attempt,
        metadata=request.metadata,
    )
