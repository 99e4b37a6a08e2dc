"""The drivers: one module each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from workers.bench.target import BenchError, EngineTarget


class Window(StrEnum):
    """How many jobs a driver keeps out in a throughput pass."""

    ALL = "all"
    """Everything is handed in; the queue holds it."""
    SLOTS = "slots"
    """As many clients as the engine has slots."""
    SLOTS_AND_HEADROOM = "slots and headroom"
    """5 % more than slots."""


@dataclass(frozen=True, slots=True)
class DriverKind:
    """What is known of a driver without starting it."""

    location: str
    """``module:class``."""
    what: str
    window: Window
    simulated: bool = True
    """Whether it can run the simulated engine."""

    def jobs_out(self, target: EngineTarget) -> int | None:
        """The window of a throughput pass in jobs; None: no bound."""
        sizes = {Window.SLOTS: target.slots, Window.SLOTS_AND_HEADROOM: target.slots_and_headroom}
        return sizes.get(self.window)


_DRIVERS = "workers.bench.drivers"
KINDS: Final = {
    "asyncllm": DriverKind(
        f"{_DRIVERS}.async_llm:AsyncLlmDriver",
        "bare AsyncLLM in one process, 5 % more jobs out than slots",
        Window.SLOTS_AND_HEADROOM,
    ),
    "asyncllm-all": DriverKind(
        f"{_DRIVERS}.async_llm:AsyncLlmDriver", "bare AsyncLLM in one process, every job at once", Window.ALL
    ),
    "fleet": DriverKind(
        f"{_DRIVERS}.fleet:FleetDriver", "this fleet: server, supervised workers, the Python producer", Window.ALL
    ),
    "static-batch": DriverKind(
        f"{_DRIVERS}.static_batch:StaticBatchDriver",
        "a worker that takes a batch from a Redis list and runs it to its end before the next",
        Window.ALL,
    ),
}


def kind_of(name: str, target: EngineTarget) -> DriverKind:
    """The driver of this name.

    Raises:
        BenchError: there is none, or it cannot run the target.
    """
    if name not in KINDS:
        raise BenchError(f"no driver {name!r}: {', '.join(KINDS)}")
    kind = KINDS[name]
    if target.kind == "simulated" and not kind.simulated:
        raise BenchError(f"driver {name} needs vLLM: it cannot run --engine simulated")
    return kind
