"""A LoRA adapter of the tiny Llama with random weights: strong enough that it answers otherwise than its model."""

import json
from pathlib import Path
from typing import Final

from workers.models.tiny import HEAD, HEADS, HIDDEN, KEY_VALUE_HEADS, LAYERS

RANK: Final = 8
TARGETS: Final = {"q_proj": HEADS * HEAD, "v_proj": KEY_VALUE_HEADS * HEAD}
"""Modules that it changes, with the width of what each puts out."""


def make_tiny_adapter(folder: Path, seed: int) -> Path:
    """Make the adapter in ``folder`` (PEFT's format); another seed is another adapter. Returns ``folder``.

    Raises:
        OSError: the folder can not be written.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    weights = {}
    for layer in range(LAYERS):
        for target, width in TARGETS.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            for part, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (width, RANK))):
                noise = torch.randn(shape, generator=generator, dtype=torch.float32)
                weights[f"{prefix}.{part}.weight"] = noise * shape[-1] ** -0.5
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 4 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder
