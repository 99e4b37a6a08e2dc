"""The real engine with a KV cache that is small for its slots: what is claimed fits."""

from pathlib import Path
from typing import Any

import pytest

from tests.running import VLLM_OPTIONS, RunningFleet

BLOCKS = 12
GREEDY: dict[str, Any] = {"max_tokens": 300, "temperature": 0.0, "ignore_eos": True}


@pytest.mark.vllm
@pytest.mark.slow
def test_long_jobs_shrink_the_claims_and_preempt_nobody(redis_url: str, tmp_path: Path, tiny_model: Path) -> None:
    """Sixteen slots, but a cache for a few such jobs: the rest waits in Redis, and vLLM throws no work away."""
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    options |= {"engine.options.max_num_seqs": 16, "engine.options.num_gpu_blocks_override": BLOCKS}
    options["engine.options.max_model_len"] = 1024
    with RunningFleet(redis_url, tmp_path, str(tiny_model), options) as fleet, fleet.producer() as producer:
        outcomes = producer.submit_many(
            {"model": fleet.served, "prompt": f"Page {number} says", "sampling": GREEDY} for number in range(12)
        )
        jobs = [outcome.submission for outcome in outcomes if outcome.submission]
        ended = list(producer.results(jobs, timeout_seconds=120))
        assert len([one for one in ended if one.result]) == 12
        assert fleet.metric("vllm:num_preemptions_total") == 0
