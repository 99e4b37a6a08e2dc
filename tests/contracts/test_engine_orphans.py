"""What is left of vLLM when the process that holds it is killed: nothing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.contracts.engine_processes import engine_processes, has_ended
from tests.waiting import eventually

HOLDS_AN_ENGINE: Final = """
import asyncio, sys
from workers.engine.base import EngineConfig
from workers.engine.vllm_engine import VllmEngine

async def hold() -> None:
    engine = VllmEngine(EngineConfig(sys.argv[1], "tiny", {"dtype": "float32", "enforce_eager": True}))
    await engine.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(hold())
"""


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_environment")
def test_vllms_processes_end_when_the_worker_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    """Kill -9 of the process that holds the engine leaves no orphan with the model in its memory."""
    script = tmp_path / "holds_an_engine.py"
    script.write_text(HOLDS_AN_ENGINE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(tiny_model)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert any(line == "ready\n" for line in holder.stdout)
        orphans = [psutil.Process(pid) for pid in engine_processes(holder.pid)]
        holder.kill()
        assert orphans
        eventually(lambda: all(has_ended(orphan) for orphan in orphans), seconds=60, what="the end of the orphans")
