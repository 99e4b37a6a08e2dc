"""A worker process that can be measured from outside: named threads, and a record of its engine's slots.

Started by ``benchmarks.worker_cost`` in place of ``python -m workers.process``, with the same arguments. The kernel
then shows each Python thread under its own name. With ``BENCHMARK_SLOTS_FILE`` in the environment, that file says when
each slot of the simulated engine was taken and left: one JSON array ``[monotonic seconds, +1 or -1]`` a line.
"""

import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

from workers import process
from workers.engine import simulated
from workers.engine.simulated_attempt import Attempt, Slots

PR_SET_NAME = 15
SLOTS_VARIABLE = "BENCHMARK_SLOTS_FILE"

changes: list[tuple[float, int]] = []


class RecordedSlots(Slots):
    """Writes down when a slot is taken and left."""

    @staticmethod
    def _give(attempt: Attempt) -> None:
        changes.append((time.monotonic(), 1))
        Slots._give(attempt)  # noqa: SLF001 - its own base class

    def leave(self, attempt: Attempt) -> None:
        """As the base class."""
        if attempt.slot_given_at is not None:
            changes.append((time.monotonic(), -1))
        super().leave(attempt)


def name_threads() -> None:
    """Let every thread tell the kernel its name, as Python does from 3.14 on."""
    libc, run = ctypes.CDLL(None), threading.Thread.run

    def named_run(thread: threading.Thread) -> None:
        libc.prctl(PR_SET_NAME, thread.name.encode(), 0, 0, 0)
        run(thread)

    threading.Thread.run = named_run  # type: ignore[method-assign]


def main() -> int:
    """Run the worker; write down what its slots did when it has ended."""
    name_threads()
    slots_file = os.environ.get(SLOTS_VARIABLE)
    if slots_file:
        simulated.Slots = RecordedSlots  # type: ignore[misc]
    exit_code = process.main()
    if slots_file:
        Path(slots_file).write_text("".join(json.dumps(change) + "\n" for change in changes))
    return exit_code


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
