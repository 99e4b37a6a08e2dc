"""One engine's part of the memory, where several share a GPU or the machine.

What an operator says of memory is said of the device: ``gpu_memory_utilization`` and ``kv_cache_memory_bytes`` are what
all its engines take together, however many they are. Each engine gets an equal part.
"""

from collections.abc import Mapping
from typing import Any, Final

DEFAULT_UTILIZATION: Final = 0.92
"""vLLM's own, where the option is not set (0.26 up to 0.33)."""
UNCOUNTED_BYTES: Final = 1024**3
"""Per engine, beside what vLLM counts: CUDA's context, which is there before vLLM's first look at the memory, and what
libraries take later. It only matters where the engines' shares leave less than that free."""
SHARE_DIGITS: Final = 4


def gpu_share(options: Mapping[str, Any], engines: int, gpu_bytes: int | None) -> dict[str, Any]:
    """The engine options of one of ``engines`` on a GPU of this size; None: the driver does not tell.

    With an explicit ``kv_cache_memory_bytes`` vLLM still refuses to start unless ``gpu_memory_utilization`` of the GPU
    is free, so that is divided in any case.
    """
    if engines == 1:
        return dict(options)
    utilization = options.get("gpu_memory_utilization", DEFAULT_UTILIZATION)
    if gpu_bytes:
        utilization = min(utilization, 1 - engines * UNCOUNTED_BYTES / gpu_bytes)
    # Rounded down: the sum must stay below the whole.
    share = int(utilization / engines * 10**SHARE_DIGITS) / 10**SHARE_DIGITS
    return dict(options) | {"gpu_memory_utilization": share} | _kv_cache_share(options, engines)


def machine_share(options: Mapping[str, Any], engines: int) -> dict[str, Any]:
    """The engine options of one of ``engines`` on this machine's CPU."""
    if engines == 1:
        return dict(options)
    utilization = options.get("gpu_memory_utilization")
    shares = {} if utilization is None else {"gpu_memory_utilization": utilization / engines}
    return dict(options) | shares | _kv_cache_share(options, engines)


def _kv_cache_share(options: Mapping[str, Any], engines: int) -> dict[str, int]:
    given_bytes = options.get("kv_cache_memory_bytes")
    return {"kv_cache_memory_bytes": given_bytes // engines} if isinstance(given_bytes, int) else {}
