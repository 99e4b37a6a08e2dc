"""How engines that share a GPU, or the machine, divide its memory."""

from typing import Any

import pytest

from workers.memory_share import DEFAULT_UTILIZATION, gpu_share, machine_share

GIB = 1024**3
LARGE, SMALL = 140 * GIB, 24 * GIB


@pytest.mark.parametrize(
    ("options", "engines", "gpu_bytes", "expected"),
    [
        ({}, 1, LARGE, {}),  # alone: vLLM's own defaults
        ({"gpu_memory_utilization": 0.9}, 1, LARGE, {"gpu_memory_utilization": 0.9}),
        ({}, 2, LARGE, {"gpu_memory_utilization": 0.46}),
        ({"gpu_memory_utilization": 0.9}, 2, LARGE, {"gpu_memory_utilization": 0.45}),
        # Three contexts beside what vLLM counts do not fit into the 8 % that 0.92 leaves of a small GPU.
        ({}, 3, SMALL, {"gpu_memory_utilization": 0.2916}),
        ({}, 2, None, {"gpu_memory_utilization": 0.46}),  # a driver that does not tell
        # vLLM checks the share of free memory at the start even where the KV cache is explicit.
        (
            {"kv_cache_memory_bytes": 8 * GIB},
            2,
            LARGE,
            {"gpu_memory_utilization": 0.46, "kv_cache_memory_bytes": 4 * GIB},
        ),
        ({"max_num_seqs": 64}, 2, LARGE, {"max_num_seqs": 64, "gpu_memory_utilization": 0.46}),
    ],
)
def test_what_is_said_of_a_gpu_is_divided_among_its_engines(
    options: dict[str, Any], engines: int, gpu_bytes: int | None, expected: dict[str, Any]
) -> None:
    """However many share it, together they take what the operator allowed."""
    assert gpu_share(options, engines, gpu_bytes) == expected


@pytest.mark.parametrize("engines", range(2, 9))
@pytest.mark.parametrize("gpu_bytes", [LARGE, SMALL])
def test_shares_never_add_up_to_more_than_the_whole(engines: int, gpu_bytes: int) -> None:
    """Rounding included, and with room for what vLLM does not count."""
    share = gpu_share({}, engines, gpu_bytes)["gpu_memory_utilization"]
    assert share * engines <= DEFAULT_UTILIZATION
    assert share * engines * gpu_bytes + engines * GIB <= gpu_bytes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kv_cache_memory_bytes": 4 * GIB}, {"kv_cache_memory_bytes": 2 * GIB}),
        ({"gpu_memory_utilization": 0.5}, {"gpu_memory_utilization": 0.25}),  # of the machine's memory: vLLM's name
    ],
)
def test_engines_on_the_cpu_divide_what_one_would_take(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """The machine's memory is bounded as with one."""
    assert machine_share(options, 2) == expected
    assert machine_share(options, 1) == options


@pytest.mark.vllm
def test_the_default_utilization_is_vllms_own() -> None:
    """What is divided when nothing is set."""
    from vllm.config import CacheConfig

    assert CacheConfig().gpu_memory_utilization == DEFAULT_UTILIZATION
