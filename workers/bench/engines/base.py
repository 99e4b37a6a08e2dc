"""What a driver needs of an engine that it calls itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

from producer.contract import GenerationRequest
from producer.sampling import SamplingOptions
from workers.bench.load import BenchJob

GREEDY: Final[dict[str, Any]] = {"temperature": 0.0, "ignore_eos": True}
"""Sampling of every job, so that it generates exactly as many tokens as it asks for."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of one job."""

    first_token_at: float | None
    """Seconds since the epoch; None where the engine does not tell."""
    prompt_tokens: int
    output_tokens: int


class BareEngine(ABC):
    """Generates for many jobs at once, on one event loop."""

    @abstractmethod
    async def start(self) -> None:
        """Load the model."""

    @abstractmethod
    async def generate(self, job: BenchJob) -> Generated:
        """Run one job to its end."""

    @abstractmethod
    async def close(self) -> None:
        """Stop it; idempotent."""


def request_of(job: BenchJob, model: str) -> GenerationRequest:
    """The job as the fleet takes it."""
    sampling = SamplingOptions.model_validate(GREEDY | {"max_tokens": job.output_tokens})
    return GenerationRequest.model_validate(
        {"model": model, "prompt": job.prompt, "priority": job.priority, "sampling": sampling}
    )
