"""A machine that asks a model hub: an empty cache of its own, and the real command."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.model_hub import COMMIT, ModelHub
from tests.running import FLEET

NAME = "acme/tiny-llama"


@dataclass(frozen=True)
class Machine:
    """A machine with a cache of its own, and the hub that it asks."""

    hub: ModelHub
    folder: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """What the command is started with; nothing of the developer's own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FLEET_"))}
        return kept | {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder)} | variables

    def run(self, *arguments: str, answer: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """``fleet models …``."""
        return subprocess.run(
            [*FLEET, "models", *arguments],
            env=self.environment(**variables),
            cwd=self.folder,
            input=answer,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def repository(self) -> Path:
        """Where the cache has the model."""
        return self.folder / "hub" / "models--acme--tiny-llama"

    def snapshot(self, commit: str = COMMIT) -> Path:
        """Its files at a commit."""
        return self.repository / "snapshots" / commit
