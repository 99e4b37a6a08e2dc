"""A tiny Llama with random weights, for machines without a model hub: it speaks nonsense, the same one everywhere.

Two layers, 384 tokens, about 6 MB in float32. It loads by vLLM's ordinary path and answers in milliseconds on a CPU.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

SEED: Final = 20_260
VOCABULARY_TOKENS: Final = 384
HIDDEN: Final = 256
INTERMEDIATE: Final = 512
LAYERS: Final = 2
HEADS: Final = 4
KEY_VALUE_HEADS: Final = 2
HEAD: Final = HIDDEN // HEADS
MAX_MODEL_TOKENS: Final = 2_048

BOS: Final = "<|begin|>"
EOS: Final = "<|end|>"
TURN: Final = "<|turn|>"
SPECIAL_TOKENS: Final = (BOS, EOS, TURN)

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|turn|>tools\n' }}{% for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}{% endif %}"
    "{% for message in messages %}{{ '<|turn|>' + message['role'] + '\n' + (message['content'] or '') + '\n' }}"
    "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson + '\n' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)

CORPUS: Final = (
    "A queue keeps work in order until somebody is free to do it.",
    "The worker takes what it can hold, and gives back what it can not finish.",
    "Every answer belongs to exactly one question; every question gets exactly one answer.",
    "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind at all.",
    "One two three four five six seven eight nine ten eleven twelve.",
    "Write a short story about the sea, the wind and the light at the end of the day.",
    "What is the name of the city where the river meets the mountain?",
    "She said that the engine would start when there was something to do, and it did.",
    '{"name": "value", "count": 12, "items": ["first", "second", "third"], "done": true}',
    "def answer(question: str) -> str:\n    return question + '!'\n",
)
"""What the tokenizer learns its merges from; any other text is spelled in bytes."""


def make_tiny_model(folder: Path) -> Path:
    """Make the model in ``folder`` (Hugging Face format) unless it is there already; return ``folder``.

    Every run writes the same bytes. The folder appears whole or not at all, also when two processes make it at once.

    Raises:
        OSError: the folder can not be written, or holds something that is not this model.
    """
    if _is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_weights(draft)
        _write_tokenizer(draft)
        _write_json(draft / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
        _write_json(draft / "config.json", _config())
        draft.chmod(0o755)
        _move_into_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_complete(folder: Path) -> bool:
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    return all((folder / name).is_file() for name in names)


def _move_into_place(draft: Path, folder: Path) -> None:
    try:
        os.replace(draft, folder)  # noqa: PTH105 - a rename over an empty folder, which Path.rename promises nowhere
    except OSError:
        if not _is_complete(folder):  # otherwise another process was faster, with the same bytes
            raise


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": VOCABULARY_TOKENS,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": MAX_MODEL_TOKENS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def _weight_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY_TOKENS, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY_TOKENS, HIDDEN),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (KEY_VALUE_HEADS * HEAD, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (KEY_VALUE_HEADS * HEAD, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
            f"{prefix}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
        }
    return shapes


def _write_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device="cpu").manual_seed(SEED)
    weights = {}
    for name, shape in _weight_shapes().items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape, dtype=torch.float32)
            continue
        # The head is scaled so that sampling at temperature 1 neither always nor never draws the likeliest token.
        scale = 3.0 if name == "lm_head.weight" else 1.0
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        weights[name] = noise * (scale / shape[-1] ** 0.5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "additional_special_tokens": [TURN],
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": MAX_MODEL_TOKENS,
        },
    )
