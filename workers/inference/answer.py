"""The five steps in a row: what a worker does with one delivery."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from producer.contract import GenerationRequest, GenerationResult
from workers.engine.base import Engine, EngineRequest
from workers.engine.entrance import NO_PATIENCE, Patience
from workers.inference.admit import admit, refuse_unnoted_webhook, remaining_seconds
from workers.inference.classify import Failed, GivenBack, classify
from workers.inference.decode import decode
from workers.inference.delivery import Delivery
from workers.inference.generate import Gathered, generate
from workers.inference.record import record
from workers.inference.retry import DEFAULT_RETRY_POLICY, RetryPolicy, retry_delay_seconds
from workers.inference.telling import Teller, Telling, generate_telling
from workers.tracing import JobTrace


@dataclass(frozen=True, slots=True)
class Later:
    """The job is not answered yet: no room now, another attempt after a while, here or elsewhere."""

    delay_seconds: float
    reason: str


Outcome = GenerationResult | Failed | GivenBack | Later


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers deliveries with one engine."""

    engine: Engine
    served_model_name: str
    worker: str
    """Celery node name."""
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY
    now: Callable[[], float] = time.time
    """The clock that deadlines are judged by, in seconds since the epoch."""
    tellers: Callable[[str, str], Teller] | None = None
    """Who tells readers of a job under a delivery's tag; None: nobody reads."""

    async def answer(self, delivery: Delivery, patience: Patience = NO_PATIENCE) -> Outcome:
        """The outcome of one delivery. Never raises but for cancellation, so that a job always has an end.

        ``patience``: whether it may wait in the engine for others to begin with.
        """
        request: GenerationRequest | None = None
        try:
            request = decode(delivery.arguments)
            refuse_unnoted_webhook(request, delivery.system)
            admit(request, self.served_model_name, self.now())
            attempt = EngineRequest(delivery.attempt_id, request, delivery.queue_priority, patience)
            trace = delivery.trace
            generated = self._generated(attempt, delivery) if trace is None else self._traced(attempt, delivery, trace)
            gathered = await generated
            return record(delivery, request, gathered, worker=self.worker, finished_at=time.time())
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes an outcome
            return self._later(classify(error), delivery, request)

    async def _traced(self, attempt: EngineRequest, delivery: Delivery, trace: JobTrace) -> Gathered:
        with trace.generating(attempt.request) as generation:
            gathered = await self._generated(replace(attempt, trace_headers=generation.headers()), delivery)
            generation.measured(gathered.prompt_tokens, gathered.completion_tokens, gathered.first_token_seconds)
        return gathered

    async def _generated(self, attempt: EngineRequest, delivery: Delivery) -> Gathered:
        if not attempt.request.stream or self.tellers is None:
            return await generate(self.engine, attempt, remaining_seconds(attempt.request, self.now()))
        teller = self.tellers(delivery.job_id, delivery.tag)
        try:
            said = await teller.said()
            left_seconds = remaining_seconds(attempt.request, self.now())
            return await generate_telling(self.engine, attempt, Telling(teller, said), left_seconds)
        finally:
            teller.close()

    def _later(
        self, outcome: Failed | GivenBack, delivery: Delivery, request: GenerationRequest | None
    ) -> Failed | GivenBack | Later:
        if request is None or not isinstance(outcome, Failed) or not outcome.retry_elsewhere:
            return outcome
        delay_seconds = retry_delay_seconds(
            self.retry_policy,
            attempt=delivery.retries + 1,
            remaining_seconds=remaining_seconds(request, self.now()),
            jitter=random.random(),  # noqa: S311 - no secret
        )
        return outcome if delay_seconds is None else Later(delay_seconds, outcome.message)
