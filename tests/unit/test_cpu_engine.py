"""What vLLM's CPU build needs of us: bounded memory, and no job that would end the engine."""

import pytest

from producer.contract import GenerationRequest, SamplingOptions
from workers.cpu_defaults import with_cpu_defaults
from workers.engine.base import RequestRejected
from workers.engine.vllm_requests import refuse_seed_that_ends_the_engine

GIB = 1024**3


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({}, {}, {"enable_chunked_prefill": False, "kv_cache_memory_bytes": 2 * GIB}),
        ({"kv_cache_memory_bytes": 7}, {}, {"enable_chunked_prefill": False, "kv_cache_memory_bytes": 7}),
        ({"gpu_memory_utilization": 0.5}, {}, {"enable_chunked_prefill": False, "gpu_memory_utilization": 0.5}),
        ({}, {"VLLM_CPU_KVCACHE_SPACE": "3"}, {"enable_chunked_prefill": False}),
        (
            {"enable_chunked_prefill": True},
            {},
            {"enable_chunked_prefill": True, "kv_cache_memory_bytes": 2 * GIB},
        ),
    ],
)
def test_defaults_go_under_what_the_operator_chose(
    options: dict[str, object], environ: dict[str, str], expected: dict[str, object]
) -> None:
    """With 8 GiB available the KV cache gets a quarter."""
    assert with_cpu_defaults(options, environ, 8 * GIB) == expected


def test_one_slot_of_adapters_stays_empty() -> None:
    """The CPU build takes the last one for jobs that have none."""
    assert with_cpu_defaults({}, {}, GIB, adapters=2)["max_loras"] == 3
    assert with_cpu_defaults({"max_loras": 9}, {}, GIB, adapters=2)["max_loras"] == 9
    assert "max_loras" not in with_cpu_defaults({}, {}, GIB)


def test_the_kv_cache_is_bounded_on_a_large_machine() -> None:
    """4 GiB serve many jobs of any model that a CPU can run."""
    assert with_cpu_defaults({}, {}, 512 * GIB)["kv_cache_memory_bytes"] == 4 * GIB


@pytest.mark.parametrize(
    ("sampling", "device_type", "splits_prompts", "is_refused"),
    [
        (SamplingOptions(seed=1), "cpu", True, True),  # sampled at temperature 1, vLLM's default
        (SamplingOptions(seed=1, temperature=0.0), "cpu", True, False),  # greedy draws no random numbers
        (SamplingOptions(temperature=0.7), "cpu", True, False),
        (SamplingOptions(seed=1), "cpu", False, False),
        (SamplingOptions(seed=1), "cuda", True, False),
    ],
)
def test_only_the_job_that_would_end_a_cpu_engine_is_refused(
    *, sampling: SamplingOptions, device_type: str, splits_prompts: bool, is_refused: bool
) -> None:
    """Seeded and sampled, on a CPU, with prompts that may be split."""
    request = GenerationRequest(model="m", prompt="x", sampling=sampling)
    if is_refused:
        with pytest.raises(RequestRejected, match="enable_chunked_prefill"):
            refuse_seed_that_ends_the_engine(request, device_type=device_type, splits_prompts=splits_prompts)
    else:
        refuse_seed_that_ends_the_engine(request, device_type=device_type, splits_prompts=splits_prompts)
