"""The queue changes nothing: greedy outputs through the fleet are those of vLLM called directly."""

import os
from pathlib import Path

import pytest

from benchmarks.comparison import differences, direct_outputs
from benchmarks.job_mix import mixed_jobs
from tests.running import ENGINE_ENVIRONMENT, VLLM_OPTIONS, RunningFleet

JOBS = 200


@pytest.mark.vllm
def test_two_hundred_mixed_jobs_equal_vllm_called_directly(vllm_fleet: RunningFleet, tiny_model: Path) -> None:
    """Text for text and token for token, with different parameters and lengths, all running together."""
    requests = list(mixed_jobs(JOBS, vllm_fleet.served, longest_output_tokens=48))
    with vllm_fleet.producer() as producer:
        results = [outcome.unwrap() for outcome in producer.map(requests)]
    direct = direct_outputs(str(tiny_model), VLLM_OPTIONS, requests, os.environ | ENGINE_ENVIRONMENT)
    assert len(direct.outputs) == JOBS
    assert sum(result.usage.completion_tokens for result in results) == direct.completion_tokens
    assert differences(results, direct.outputs) == []
    assert len({result.text for result in results}) > JOBS / 2
