"""The simulated engine, called directly."""

import time
from contextlib import aclosing
from itertools import count

from workers.bench.engines.base import BareEngine, Generated, request_of
from workers.bench.load import BenchJob
from workers.bench.target import EngineTarget
from workers.engine.base import EngineConfig, EngineRequest
from workers.engine.simulated import SimulatedEngine


class BareSimulated(BareEngine):
    """One simulated engine with its core process."""

    def __init__(self, target: EngineTarget) -> None:
        self._model = target.served
        self._engine = SimulatedEngine(EngineConfig(target.model, target.served, target.options))
        self._numbers = count()

    async def start(self) -> None:
        """See :meth:`BareEngine.start`."""
        await self._engine.start()

    async def generate(self, job: BenchJob) -> Generated:
        """See :meth:`BareEngine.generate`."""
        began_at, output_tokens = time.time(), 0
        attempt = EngineRequest(f"bare-{next(self._numbers)}", request_of(job, self._model))
        async with aclosing(self._engine.generate(attempt)) as increments:
            async for increment in increments:
                output_tokens += sum(choice.token_count for choice in increment.choices)
                last = increment
        first_token_seconds = last.first_token_seconds
        # With one token the end is the first token; the engine's own figure is what it planned beforehand.
        first_at = time.time() if job.output_tokens == 1 else began_at + (first_token_seconds or 0.0)
        return Generated(first_at, last.prompt_tokens, output_tokens)

    async def close(self) -> None:
        """See :meth:`BareEngine.close`."""
        await self._engine.close()
