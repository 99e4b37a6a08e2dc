"""The simulated engine's process: it does nothing, but it can be killed, and it never outlives its parent."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Final

import psutil

PROGRAM: Final = "import sys; sys.stdin.read()"
"""Ends when its standard input does: at :meth:`SimulatedCore.close`, and when the parent is gone, however it went."""


class SimulatedCore:
    """One process; ``on_death`` is called on the loop when it ends by itself."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        self._on_death = on_death
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Start the process.

        Raises:
            OSError: it can not be started.
        """
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", PROGRAM, stdin=PIPE)
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: Process) -> None:
        await process.wait()
        if not self._closing:
            self._on_death()

    @property
    def pid(self) -> int | None:
        """Process id; None before the start and after the end."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    @property
    def is_stopped(self) -> bool:
        """Whether the process lives but is not let run (SIGSTOP)."""
        try:
            return self.pid is not None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def close(self) -> None:
        """End it and wait for that; idempotent."""
        self._closing = True
        if self._process is not None and self._process.stdin is not None and self._watcher is not None:
            self._process.stdin.close()
            await self._watcher
