"""LoRA adapters: whether they are there, what an engine needs to hold them, and who may ask for them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from producer.contract import FailureCode, GenerationRequest
from workers.engine.base import EngineOptionsInvalid, RequestRejected

RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM reserves room for."""
ADAPTER_FILES: Final = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
MOST_TOGETHER: Final = 8
"""Adapters that one step may mix, unless the operator says otherwise: each takes GPU memory."""


def adapter_options(adapters: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, under vLLM's names, with those under them that an engine needs to hold these adapters.

    Raises:
        EngineOptionsInvalid: a folder holds no adapter, or one of a rank that vLLM does not take.
    """
    if not adapters:
        return dict(options)
    largest = max(_rank(name, Path(folder)) for name, folder in adapters.items())
    reserved = next((rank for rank in RANKS if rank >= largest), None)
    if reserved is None:
        raise EngineOptionsInvalid(f"model.lora_adapters: rank {largest}, and vLLM takes {RANKS[-1]} at most")
    together = options.get("max_loras", min(len(adapters), MOST_TOGETHER))
    kept = {"max_cpu_loras": len(adapters)} if isinstance(together, int) and together < len(adapters) else {}
    return {"enable_lora": True, "max_loras": together, "max_lora_rank": reserved} | kept | dict(options)


def refuse_unknown_adapter(request: GenerationRequest, adapters: Mapping[str, str]) -> None:
    """Return if this engine has the adapter that the request names, or the request names none.

    Raises:
        RequestRejected: it has none such; the base model would answer something else.
    """
    if request.lora is not None and request.lora not in adapters:
        known = ", ".join(sorted(adapters)) or "none"
        raise RequestRejected(
            FailureCode.MODEL_NOT_FOUND,
            f"this worker has no adapter {request.lora!r} (it has: {known}): give all the same model.lora_adapters",
        )


def _rank(name: str, folder: Path) -> int:
    try:
        rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EngineOptionsInvalid(
            f"model.lora_adapters: {folder} ({name}) holds no adapter_config.json with a rank (r)"
        ) from error
    if not isinstance(rank, int) or not any((folder / file).is_file() for file in ADAPTER_FILES):
        raise EngineOptionsInvalid(f"model.lora_adapters: {folder} ({name}) lacks adapter_model.safetensors")
    return rank
