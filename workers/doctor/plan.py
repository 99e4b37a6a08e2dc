"""What is to run on this host, as far as its findings depend on it; and how a finding is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from producer.doctor import Finding, Level
from workers.memory_share import DEFAULT_UTILIZATION

GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings that matter here, and where they put the engines."""

    model: str = ""
    """A folder, or a name on the hub; empty: none was named."""
    revision: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's, by vLLM's names."""
    engines: tuple[tuple[str, ...], ...] = ((),)
    """The GPUs of each engine; none: it runs on the CPU."""
    engines_on_device: int = 1
    adapters: Mapping[str, str] = field(default_factory=dict)
    """The folder of each LoRA adapter, by its name."""
    ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host and port by the setting that moves it."""

    @property
    def gpus(self) -> list[str]:
        """Every GPU that is used, once."""
        return list(dict.fromkeys(gpu for engine in self.engines for gpu in engine))

    @property
    def gpus_per_engine(self) -> int:
        """Over how many GPUs one engine's weights are spread; 1 on the CPU."""
        return max(1, *(len(engine) for engine in self.engines))

    @property
    def utilization(self) -> float:
        """The share of a GPU's memory that its engines take together."""
        value = self.options.get("gpu_memory_utilization")
        return float(value) if isinstance(value, int | float) else DEFAULT_UTILIZATION

    @property
    def wants_fp8(self) -> bool:
        """Whether weights or KV cache are to be in 8-bit floating point."""
        return "fp8" in (self.options.get("quantization"), str(self.options.get("kv_cache_dtype"))[:3])


def fine(subject: str, sentence: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, subject, sentence)


def doubtful(subject: str, sentence: str) -> Finding:
    """It works, or may; the sentence says what can happen, and what to do."""
    return Finding(Level.WARNING, subject, sentence)


def failing(subject: str, sentence: str) -> Finding:
    """It will not work; the sentence says what to do."""
    return Finding(Level.REFUSED, subject, sentence)


def gib(size_bytes: float) -> str:
    """For people."""
    return f"{size_bytes / GIB:,.1f} GiB"
