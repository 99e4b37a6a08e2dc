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
    """25 % more than slots."""


@dataclass(frozen=True, slots=True)
class DriverKind:
    """What is known of a driver without starting it."""

    location: str
    """``module:class``."""
    what: str
    window: Window
    simulated: bool = True
    """Whether it can run the simulated engine."""
    backlog: bool = False
    """Whether it can be handed a whole pass before a worker takes the first job."""
    arrivals: bool = True
    """Whether it can be handed jobs one at a time, and later than others."""

    def jobs_out(self, target: EngineTarget) -> int | None:
        """The window of a throughput pass in jobs; None: no bound."""
        sizes = {Window.SLOTS: target.slots, Window.SLOTS_AND_HEADROOM: target.slots_and_headroom}
        return sizes.get(self.window)


_DRIVERS = "workers.bench.drivers"
KINDS: Final = {
    "asyncllm": DriverKind(
        f"{_DRIVERS}.async_llm:AsyncLlmDriver",
        "bare AsyncLLM in one process, 25 % more jobs out than slots",
        Window.SLOTS_AND_HEADROOM,
    ),
    "asyncllm-all": DriverKind(
        f"{_DRIVERS}.async_llm:AsyncLlmDriver", "bare AsyncLLM in one process, every job at once", Window.ALL
    ),
    "llm": DriverKind(
        f"{_DRIVERS}.llm:LlmDriver", "one LLM.generate call", Window.ALL, simulated=False, arrivals=False
    ),
    "fleet": DriverKind(
        f"{_DRIVERS}.fleet:FleetDriver",
        "this fleet: server, supervised workers, the Python producer",
        Window.ALL,
        backlog=True,
    ),
    "static-batch": DriverKind(
        f"{_DRIVERS}.static_batch:StaticBatchDriver",
        "a worker that takes a batch from a Redis list and runs it to its end before the next",
        Window.ALL,
        arrivals=False,
    ),
    "celery-threads": DriverKind(
        f"{_DRIVERS}.celery_threads:CeleryThreadsDriver",
        "stock Celery on the stock transport, threads pool, one AsyncLLM in the worker",
        Window.ALL,
        backlog=True,
    ),
    "ray-serve": DriverKind(
        f"{_DRIVERS}.ray_serve:RayServeDriver",
        "Ray Serve's Celery task consumer, one AsyncLLM in its replica",
        Window.ALL,
    ),
    "serve": DriverKind(
        f"{_DRIVERS}.serve:ServeDriver",
        "vllm serve over HTTP, as many clients as slots",
        Window.SLOTS,
        simulated=False,
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
