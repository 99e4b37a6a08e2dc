"""Model folders for measuring: a real model's shape with our tokenizer, for ``load_format="dummy"`` weights."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from workers.models.tiny import make_tiny_model

MAX_MODEL_TOKENS: Final = 2_048
NAMES: Final = ("tiny", "0.6b", "8b")
COMMON: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "head_dim": 128,
    "max_position_embeddings": MAX_MODEL_TOKENS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
    "vocab_size": 32_000,
}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    # Qwen3-0.6B's and Llama-3.1-8B's layers; the vocabulary is 32,000 in both, as in earlier measurements.
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}


def model_folder(shape: str, parent: Path) -> tuple[Path, dict[str, Any]]:
    """A model folder of this shape under ``parent``, and the engine options that load it.

    Raises:
        ValueError: there is no such shape.
    """
    if shape not in NAMES:
        raise ValueError(f"no shape {shape!r}: {', '.join(NAMES)}")
    if shape == "tiny":
        return make_tiny_model(parent / "tiny"), {
            "dtype": "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": 512 * 1024**2,
        }
    tiny = make_tiny_model(parent / "tiny-for-its-tokenizer")
    folder = parent / f"llama-{shape}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in tiny.glob("*token*.json"):
        shutil.copy(file, folder)
    for file in tiny.glob("*.jinja"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(COMMON | SHAPES[shape], indent=1))
    return folder, {"load_format": "dummy", "dtype": "bfloat16"}
