"""Where a worker process is in its life."""

from dataclasses import dataclass

from producer.presence import Phase
from workers.engine.host import EngineHost


@dataclass
class WorkerState:
    """What ``/health`` and ``/ready`` answer from."""

    model: str
    host: EngineHost
    phase: Phase = Phase.LOADING

    @property
    def is_healthy(self) -> bool:
        """The engine lives and its loop turns; a loading worker is healthy, its start has a limit of its own."""
        return self.phase is Phase.LOADING or (self.phase is not Phase.DEAD and self.host.is_healthy)

    @property
    def is_ready(self) -> bool:
        """The model is loaded and the worker takes jobs."""
        return self.phase is Phase.READY and self.host.is_healthy

    def described(self) -> dict[str, str | None]:
        """What people see beside the status code."""
        return {"phase": self.phase.value, "model": self.model, "cause": self.host.death}
