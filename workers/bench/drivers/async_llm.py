"""``asyncllm``: the engine called directly, in one process and on one event loop."""

import asyncio
from pathlib import Path

from workers.bench.drivers.base import Driver
from workers.bench.engines.choice import bare_engine
from workers.bench.load import BenchJob, Load
from workers.bench.pacing import paced
from workers.bench.records import JobRecord, PassRecord
from workers.bench.target import EngineTarget


class AsyncLlmDriver(Driver):
    """See the module. What it measures ends when ``generate`` has yielded its last output."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self._loop = asyncio.Runner()
        self._engine = bare_engine(target)

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        self._loop.run(self._engine.start())

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        return self._loop.run(paced(load, self._generate))

    async def _generate(self, job: BenchJob, record: JobRecord) -> None:
        generated = await self._engine.generate(job)
        record.first_token_at = generated.first_token_at
        record.prompt_tokens, record.output_tokens = generated.prompt_tokens, generated.output_tokens

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._loop.run(self._engine.close())
        self._loop.close()
