"""Which bare engine a target asks for."""

from workers.bench.engines.base import BareEngine
from workers.bench.target import EngineTarget


def bare_engine(target: EngineTarget) -> BareEngine:
    """The bare engine of this target, not started."""
    if target.kind == "simulated":
        from workers.bench.engines.simulated import BareSimulated

        return BareSimulated(target)
    from workers.bench.engines.bare_vllm import BareVllm

    return BareVllm(target)
