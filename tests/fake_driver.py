"""A program called ``nvidia-smi`` that answers as the driver's does, for hosts without one."""

from pathlib import Path

GPU_ROW = "0, GPU-aaaa-bbbb, NVIDIA H100 80GB HBM3, 580.82.07, 81559, 30720, 9.0"
PROCESS_ROW = "GPU-aaaa-bbbb, 4711, /usr/bin/python3, 30714"
_SCRIPT = """#!/bin/sh
case "$1" in
  --query-gpu=index) echo 0 ;;
  --query-gpu=*) echo "{gpu}" ;;
  --query-compute-apps=*) echo "{process}" ;;
  *) exit 2 ;;
esac
"""


def install_driver(folder: Path, gpu: str = GPU_ROW, process: str = PROCESS_ROW) -> Path:
    """Put the program into ``folder``, which is returned: it goes to the front of PATH."""
    return install_program(folder, _SCRIPT.format(gpu=gpu, process=process))


def install_program(folder: Path, script: str, name: str = "nvidia-smi") -> Path:
    """A program of this name that does something else, or another of the driver's."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    return folder
