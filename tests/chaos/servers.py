"""Servers that fail as machines do: one that loses its power, one whose disk fills up."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import redis

from workers.embedded import EmbeddedServer

APPEND_ONLY_FILE: Final = "appendonlydir/appendonly.aof.1.incr.aof"
"""Where Valkey appends, until it rewrites the file the first time (at 64 MB)."""
LOOK_SECONDS: Final = 0.02
LOST_SECONDS: Final = 1.0
"""What ``everysec`` may lose."""
DISK_BYTES: Final = 48 * 1024 * 1024
BALLAST_CHUNK_BYTES: Final = 64 * 1024


class PowerLossServer(EmbeddedServer):
    """Can end as with its machine: the file keeps only what it held a second before, as ``everysec`` allows.

    The kernel writes what a killed process wrote, so SIGKILL alone shows nothing of this.
    """

    def watch(self) -> None:
        """Remember from now on how long the file was when."""
        self._lengths: deque[tuple[float, int]] = deque(maxlen=round(10 / LOOK_SECONDS))
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="file-length", daemon=True)
        self._watcher.start()

    def unwatch(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._watcher.join()

    def _watch(self) -> None:
        path = self.folder / APPEND_ONLY_FILE
        while not self._stopping.wait(LOOK_SECONDS):
            self._lengths.append((time.monotonic(), path.stat().st_size))

    def lose_power(self) -> None:
        """Kill it and cut its file to what it was a second ago."""
        killed_at = time.monotonic()
        self.kill()
        kept = [length for moment, length in list(self._lengths) if moment <= killed_at - LOST_SECONDS]
        with (self.folder / APPEND_ONLY_FILE).open("r+b") as file:
            file.truncate(kept[-1])


class SmallDiskServer(EmbeddedServer):
    """Keeps its data on a small disk of its own (a tmpfs in a mount namespace), which :meth:`fill` fills up."""

    def _command(self) -> list[str]:
        mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
        folder = str(self.folder.resolve())
        return ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, folder, *super()._command()]

    @property
    def _ballast(self) -> Path:
        # The namespace of another process is reached through that process.
        return Path(f"/proc/{self.pid}/root{self.folder.resolve()}") / "ballast"

    def fill(self) -> None:
        """Write until the disk is full."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:  # until no space is left
            while True:
                file.write(bytes(BALLAST_CHUNK_BYTES))

    def make_room(self) -> None:
        """Take it all away again."""
        self._ballast.unlink()

    def append_fails(self, client: "redis.Redis") -> bool:
        """Whether the server knows that it cannot write."""
        return str(client.info("persistence")["aof_last_write_status"]) != "ok"


@contextlib.contextmanager
def running(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """The server and, for one that needs it, its watcher."""
    with server:
        if not isinstance(server, PowerLossServer):
            yield server
            return
        server.watch()
        try:
            yield server
        finally:
            server.unwatch()
