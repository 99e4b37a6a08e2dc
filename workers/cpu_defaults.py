"""Engine options for vLLM's CPU build that its own defaults get wrong.

* vLLM reserves 92 % of a memory node and does not start when less is free, which is the rule on a machine that does
  anything else: the KV cache gets a bounded share instead.
* A seeded job whose prompt is split over two steps ends the engine (vLLM 0.32, ``gpu_model_runner``: torch's CPU
  generator "does not use offset"): prompts are not split.
* Jobs of the model itself are computed with the adapter in the last slot (vLLM 0.32, ``lora/ops/torch_ops``: -1, which
  stands for no adapter, is taken for an index from the end): one slot more than there are adapters stays empty, and an
  empty one adds nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

OWN_KV_CACHE_OPTIONS: Final = ("kv_cache_memory_bytes", "gpu_memory_utilization")
OWN_KV_CACHE_VARIABLE: Final = "VLLM_CPU_KVCACHE_SPACE"
LARGEST_KV_CACHE_BYTES: Final = 4 * 1024**3
SHARE_OF_AVAILABLE: Final = 0.25


def with_cpu_defaults(
    options: Mapping[str, Any], environ: Mapping[str, str], available_bytes: int, adapters: int = 0
) -> dict[str, Any]:
    """The engine options with these defaults under them; what the operator set stays.

    Args:
        options: engine options under vLLM's names.
        environ: the environment.
        available_bytes: memory of the machine that is free or can be freed.
        adapters: how many LoRA adapters there are.
    """
    defaults: dict[str, Any] = {"enable_chunked_prefill": False}
    if not environ.get(OWN_KV_CACHE_VARIABLE) and not any(name in options for name in OWN_KV_CACHE_OPTIONS):
        share_bytes = int(available_bytes * SHARE_OF_AVAILABLE)
        defaults["kv_cache_memory_bytes"] = min(LARGEST_KV_CACHE_BYTES, share_bytes)
    if adapters:
        defaults["max_loras"] = adapters + 1
    return defaults | dict(options)
