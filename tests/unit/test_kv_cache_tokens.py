"""How many tokens vLLM's KV cache holds, from what its versions say of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from workers.engine.vllm_engine import kv_cache_tokens


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"num_gpu_blocks": 100, "block_size": 16}, 1_600),  # a vLLM without a count of its own
        ({"num_gpu_blocks": 100, "block_size": 16, "kv_cache_size_tokens": None}, 1_600),
        ({"num_gpu_blocks": 100, "block_size": 16, "kv_cache_size_tokens": 900}, 900),  # two groups of layers
        ({"num_gpu_blocks": 100, "block_size": 16, "kv_cache_size_tokens": 50_000}, 1_600),  # sliding window only
        ({"num_gpu_blocks": None, "block_size": 16}, None),
        ({"num_gpu_blocks": 0, "block_size": 16}, None),  # a model without attention
    ],
)
def test_the_smaller_of_both_counts_is_what_fits(said: dict[str, Any], tokens: int | None) -> None:
    """A worker that trusts the larger would make vLLM preempt."""
    cache: Any = SimpleNamespace(**said)
    assert kv_cache_tokens(cache) == tokens
