"""What simulated engines share, as real ones share a GPU: each is slower the more there are."""

import os
from pathlib import Path


class SimulatedDevice:
    """Known by a folder, in which each running engine has a file; without one, an engine has a device to itself."""

    def __init__(self, folder: str, engines_that_fill_it: float) -> None:
        self._folder = Path(folder) if folder else None
        self._engines_that_fill_it = engines_that_fill_it

    def enter(self) -> None:
        """One more engine."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / str(os.getpid())).touch()

    def leave(self) -> None:
        """One engine less; idempotent."""
        if self._folder is not None:
            (self._folder / str(os.getpid())).unlink(missing_ok=True)

    @property
    def slowdown(self) -> float:
        """How much longer everything takes now than for an engine alone."""
        count = sum(1 for _ in self._folder.iterdir()) if self._folder is not None else 1
        return max(1.0, count / self._engines_that_fill_it)
