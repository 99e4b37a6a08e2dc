"""A process that ends with the one that started it, also when that was over before the kernel could be asked."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["workers.process", "workers.calibrating"])
def test_whose_parent_is_already_gone_ends_at_once(module: str) -> None:
    """Before it loads an engine that nobody would end."""
    gone = subprocess.Popen([sys.executable, "-c", ""])  # not waited for: its id is nobody else's meanwhile
    try:
        command = [sys.executable, "-m", module, "--parent", str(gone.pid)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        gone.wait()
    assert ended.returncode == 1
    assert ended.stderr == f"process {gone.pid}, which started this one, is gone\n"
