"""The five steps in a row: what a worker does with one delivery."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from producer.contract import GenerationRequest, GenerationResult
from workers.engine.base import Engine, EngineRequest
from workers.engine.entrance import NO_PATIENCE, Patience
from workers.inference.admit import admit, remaining_seconds
from workers.inference.classify import Failed, GivenBack, classify
from workers.inference.decode import decode
from workers.inference.delivery import Delivery
from workers.inference.generate import generate
from workers.inference.record import record
from workers.inference.retry import DEFAULT_RETRY_POLICY, RetryPolicy, retry_delay_seconds


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

    async def answer(self, delivery: Delivery, patience: Patience = NO_PATIENCE) -> Outcome:
        """The outcome of one delivery. Never raises but for cancellation, so that a job always has an end.

        ``patience``: whether it may wait in the engine for others to begin with.
        """
        request: GenerationRequest | None = None
        try:
            request = decode(delivery.arguments)
            admit(request, self.served_model_name, self.now())
            attempt = EngineRequest(delivery.attempt_id, request, delivery.queue_priority, patience)
            gathered = await generate(self.engine, attempt, remaining_seconds(request, self.now()))
            return record(delivery, request, gathered, worker=self.worker, finished_at=time.time())
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes an outcome
            return self._later(classify(error), delivery, request)

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
