"""``llm``: one ``LLM.generate`` call per pass. Its results come all at once, when the last has ended."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from workers.bench.drivers.base import Driver
from workers.bench.engines.base import GREEDY
from workers.bench.load import Load
from workers.bench.records import JobRecord, PassRecord
from workers.bench.target import BenchError, EngineTarget

if TYPE_CHECKING:
    from vllm import LLM


class LlmDriver(Driver):
    """See the module."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self._llm: LLM | None = None

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        from vllm import LLM

        self._llm = LLM(model=self.target.model, served_model_name=self.target.served, **self.target.options)

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        from vllm import SamplingParams

        if self._llm is None:
            raise BenchError("the engine is not running")
        submitted_at = time.time()
        params = [SamplingParams(**GREEDY, max_tokens=job.output_tokens) for job in load.jobs]
        outputs = self._llm.generate([job.prompt for job in load.jobs], params, use_tqdm=False)
        ended_at = time.time()
        records = [
            JobRecord(
                job.index,
                submitted_at,
                ended_at,
                prompt_tokens=len(output.prompt_token_ids or ()),
                output_tokens=len(output.outputs[0].token_ids),
            )
            for job, output in zip(load.jobs, outputs, strict=True)
        ]
        return PassRecord(records, submitted_at)

    def stop(self) -> None:
        """See :meth:`Driver.stop`; EngineCore ends with the last reference."""
        self._llm = None
