"""The model: whether it is here and whole, and whether it fits into the memory that it is to have."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from producer.doctor import Finding
from workers.doctor.nvidia import Gpu, chosen
from workers.doctor.plan import Plan, doubtful, failing, fine, gib
from workers.engine.adapters import adapter_options
from workers.engine.base import EngineOptionsInvalid
from workers.models.cache import cache_folder, find
from workers.models.folder import faults, names_folder, weights_bytes
from workers.models.hub import is_offline

ROOM_SHARE: Final = 0.1
"""Least part of an engine's memory that should be left beside the weights: its KV cache holds the running jobs."""


def model_findings(plan: Plan, gpus: Sequence[Gpu] | None) -> Iterator[Finding]:
    """Present, whole, and small enough; and its adapters."""
    if plan.adapters:
        yield _adapters(plan)
    if not plan.model:
        yield fine("model", "none is named: --model, FLEET_MODEL or model.name, to have it looked at")
        return
    folder = _folder(plan)
    if folder is None:
        yield _absent(plan.model)
        return
    wrong = faults(folder)
    if wrong:
        yield failing("model", f"{plan.model} in {folder}: {'; '.join(wrong)}; {_mend(plan.model)}")
        return
    yield fine("model", f"{plan.model} is in {folder}, {gib(weights_bytes(folder))} of weights")
    if plan.options.get("quantization") and (method := _quantized_by(folder)):
        yield _quantization(str(plan.options["quantization"]), method)
    yield _gpu_memory(plan, folder, chosen(gpus, plan.gpus)) if gpus and plan.gpus else _cpu_memory(plan, folder)


def _quantization(asked: str, method: str) -> Finding:
    text = f"the model's files are quantized by {method}"
    if asked.startswith(method):  # vLLM's own names of kernels begin so: awq_marlin
        return fine("quantization", text)
    return failing(
        "quantization",
        f"{text}, and engine.options.quantization asks for {asked}: use the profile awq-gptq, or set "
        "FLEET_ENGINE__OPTIONS__QUANTIZATION=null",
    )


def _adapters(plan: Plan) -> Finding:
    try:
        rank = adapter_options(plan.adapters, {})["max_lora_rank"]
    except EngineOptionsInvalid as error:
        return failing("adapters", f"{error}: copy it anew, or leave it out")
    return fine("adapters", f"{', '.join(plan.adapters)}; room for rank {rank}")


def _folder(plan: Plan) -> Path | None:
    if names_folder(plan.model):
        return Path(plan.model)
    found = find(plan.model, plan.revision)
    return found.folder if found else None


def _absent(name: str) -> Finding:
    where = f"{name} is not in the cache ({cache_folder()})"
    if is_offline():
        return failing("model", f"{where}, and HF_HUB_OFFLINE is set: unset it, and run fleet models preload")
    return doubtful("model", f"{where}: the first start downloads it; fleet models preload does so before")


def _mend(name: str) -> str:
    return "copy it anew" if names_folder(name) else f"run fleet models pull {name} --repair"


def _gpu_memory(plan: Plan, folder: Path, gpus: Sequence[Gpu]) -> Finding:
    if not gpus:
        return doubtful("memory", f"the driver does not know GPU {', '.join(plan.gpus)}: see nvidia-smi -L")
    budget = min(gpu.total_bytes for gpu in gpus) * plan.utilization / plan.engines_on_device
    weights = _loaded_bytes(plan, folder) / plan.gpus_per_engine
    return _judged(
        weights,
        budget,
        f"{gib(weights)} of weights in {gib(budget)} of a GPU",
        "raise engine.options.tensor_parallel_size, lower worker.engines_per_gpu, or take a quantized model",
    )


def _cpu_memory(plan: Plan, folder: Path) -> Finding:
    budget = psutil.virtual_memory().available
    weights = _loaded_bytes(plan, folder) * plan.engines_on_device
    return _judged(
        weights,
        budget,
        f"{gib(weights)} of weights in {gib(budget)} of free memory",
        "end what else runs here, take fewer engines, or a smaller model",
    )


def _judged(weights: float, budget: float, text: str, remedy: str) -> Finding:
    if weights >= budget:
        return failing("memory", f"{text}: it does not fit; {remedy}")
    if budget - weights < ROOM_SHARE * budget:
        return doubtful("memory", f"{text}: little is left for the KV cache, so few jobs run together; {remedy}")
    return fine("memory", f"{text}: {gib(budget - weights)} for KV cache and the rest")


def _loaded_bytes(plan: Plan, folder: Path) -> float:
    """Weights of two bytes that are turned into FP8 while they load take half; others what their files take."""
    stored = weights_bytes(folder)
    is_turned = plan.options.get("quantization") == "fp8" and not _quantized_by(folder)
    return stored / 2 if is_turned else stored


def _quantized_by(folder: Path) -> str:
    """The method that the model's own configuration names; empty: none."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config["quantization_config"]["quant_method"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
