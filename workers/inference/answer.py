"""The five steps in a row: what a worker does with one delivery."""

import time
from dataclasses import dataclass

from producer.contract import GenerationResult
from workers.engine.base import Engine, EngineRequest
from workers.inference.admit import admit, remaining_seconds
from workers.inference.classify import Failed, GivenBack, classify
from workers.inference.decode import decode
from workers.inference.delivery import Delivery
from workers.inference.generate import generate
from workers.inference.record import record

Outcome = GenerationResult | Failed | GivenBack


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers deliveries with one engine."""

    engine: Engine
    served_model_name: str
    worker: str
    """Celery node name."""

    async def answer(self, delivery: Delivery) -> Outcome:
        """The outcome of one delivery. Never raises but for cancellation, so that a job always has an end."""
        try:
            request = decode(delivery.arguments)
            admit(request, self.served_model_name, time.time())
            attempt = EngineRequest(delivery.attempt_id, request, priority=delivery.queue_priority)
            gathered = await generate(self.engine, attempt, remaining_seconds(request, time.time()))
            return record(delivery, request, gathered, worker=self.worker, finished_at=time.time())
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes an outcome
            return classify(error)
