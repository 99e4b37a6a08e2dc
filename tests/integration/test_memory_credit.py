"""Engines with a KV cache that is small for their slots: what is claimed fits, and begins together."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.running import VLLM_OPTIONS, RunningFleet, simulated
from workers.bench.occupancy import read_spans

BLOCKS = 12
TOGETHER_SECONDS = 0.004
"""Jobs of one group get their slots this close; alone they are some 50 ms apart."""
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


def test_jobs_begin_together_where_memory_and_not_seats_is_what_limits(redis_url: str, tmp_path: Path) -> None:
    """An eighth of what there is memory for, though a group of the size for all seats would never be complete."""
    log = tmp_path / "slots"
    options = {"max_num_seqs": 64, "max_model_len": 256, "kv_cache_tokens": 2600, "seconds_per_token": 0.01}
    fleet = simulated(redis_url, tmp_path, **options, slot_log=str(log))
    fleet.options = dict(fleet.options) | {"worker.refill_jobs": 16, "worker.refill_max_wait_ms": 5_000}
    draw = random.Random(7)  # noqa: S311 - sizes, not secrets
    with fleet, fleet.producer() as producer:
        outcomes = producer.submit_many(
            {
                "model": "sim",
                "prompt": f"page {number}",
                "sampling": {"max_tokens": draw.randint(60, 140), "ignore_eos": True},
            }
            for number in range(100)
        )
        jobs = [outcome.submission for outcome in outcomes if outcome.submission]
        assert all(one.result for one in producer.results(jobs, timeout_seconds=60))
    spans = read_spans(log)[-100:]  # the warm-up came before
    given = sorted(span.given_at for span in spans)
    overlap = max(sum(other.given_at <= at < other.left_at for other in spans) for at in given)
    assert 16 <= overlap < 32, "as many ran as there is memory for"
    window = [at for at in given if given[overlap] <= at <= given[-overlap]]
    lonely = [
        at
        for before, at, after in zip(window, window[1:], window[2:], strict=False)
        if at - before > TOGETHER_SECONDS < after - at
    ]
    assert len(lonely) < len(window) / 5
