"""What the kernel and the C library can be made to do to a process: a wrong clock, a memory limit.

Each needs something of the machine, and says what when it is not there.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

MEMORY_V1: Final = Path("/sys/fs/cgroup/memory")
MEMORY_V2: Final = Path("/sys/fs/cgroup")
CLOCK_SOURCE: Final = Path(__file__).with_name("wrong_clock.c")


class NotHere(Exception):
    """This machine cannot show the fault; the message says what it lacks."""


def clock_environment(offset_seconds: int, folder: Path) -> dict[str, str]:
    """Variables that put a process's wall clock off: of whatever asks the C library for the time of day.

    Python's ``time.time`` and ``datetime.now`` and every C extension are covered; the monotonic clock is left alone, as
    a wrong wall clock leaves it. libfaketime does the same, but Python's ``time.sleep`` fails under it (EINVAL).

    Raises:
        NotHere: there is no C compiler.
    """
    if not offset_seconds:
        return {}
    library = folder / "wrong_clock.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise NotHere("no C compiler (cc) for the library that puts a clock off")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK_SOURCE], check=True)
    return {"LD_PRELOAD": str(library), "CHAOS_CLOCK_OFFSET_SECONDS": str(offset_seconds)}


def refuse_without_mount_namespaces() -> None:
    """Check that a small disk can be mounted.

    Raises:
        NotHere: it can not.
    """
    probe = ["unshare", "--mount", "--map-root-user", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        raise NotHere("no mount namespaces: run as root, or allow unprivileged user namespaces")


class MemoryGroup:
    """A memory cgroup of the kernel's, version 1 or 2. What it kills it kills as it kills any process: SIGKILL."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        lines = (self._folder / self._files["events"]).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def take_in(self, pid: int, further_bytes: int) -> None:
        """Limit what this process takes from now on: what it has stays charged where it was."""
        (self._folder / self._files["limit"]).write_text(str(further_bytes))
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def memory_group(name: str) -> Iterator[MemoryGroup]:
    """A fresh group, removed in the end: its processes must be gone by then.

    Raises:
        NotHere: this process may not make one.
    """
    if (MEMORY_V1 / "memory.limit_in_bytes").exists():
        root, files = MEMORY_V1, {"limit": "memory.limit_in_bytes", "events": "memory.oom_control"}
    else:
        root, files = MEMORY_V2, {"limit": "memory.max", "events": "memory.events"}
    folder = root / name
    try:
        folder.mkdir()
        if not (folder / files["limit"]).exists():
            folder.rmdir()
            raise NotHere(f"no memory controller under {root}")
    except OSError as error:
        raise NotHere(f"no memory cgroup can be made under {root}: {error.strerror}") from error
    try:
        yield MemoryGroup(folder, files)
    finally:
        folder.rmdir()
