"""Server, workers, gateway, exporter and Flower as processes of this machine, started together and stopped together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from config.loading import DEFAULT_ORIGIN, LoadedSettings, load_settings
from config.settings import Settings
from workers.embedded import EmbeddedServer
from workers.local.exporter import exporter_command, exporter_environment, exporter_url
from workers.local.flower import StateUnusable, flower_command, flower_environment, flower_url, prepare_state
from workers.local.gateway import gateway_command, gateway_environment, gateway_url

POLL_SECONDS: Final = 0.2
PAGE_TIMEOUT_SECONDS: Final = 2.0
FLOWER_STOP_SECONDS: Final = 5.0
EXPORTER_STOP_SECONDS: Final = 5.0
GATEWAY_STOP_SECONDS: Final = 5.0
"""Beyond what its open requests have."""
LAST_LINES: Final = 15


class StackFailed(Exception):
    """A part did not come up, or ended; the message has its last words."""


@dataclass
class LocalStack:
    """Use as a context manager: everything is up inside, nothing is left afterwards.

    Args:
        folder: data, logs and models (``.fleet``).
        overrides: settings by dotted name, over file and environment.
        config_file: as for :func:`config.loading.load_settings`.
    """

    folder: Path
    overrides: Mapping[str, Any]
    config_file: Path | None = None
    _loaded: LoadedSettings = field(init=False)
    _cleanup: ExitStack = field(default_factory=ExitStack, init=False)
    _workers: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._loaded = self._load(self.overrides)

    def _load(self, overrides: Mapping[str, Any]) -> LoadedSettings:
        return load_settings(config_file=self.config_file, environ=os.environ, overrides=overrides)

    @property
    def settings(self) -> Settings:
        """What is in force; addresses and ports are final once it is up."""
        return self._loaded.settings

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self) -> None:
        ports: dict[str, Any] = {
            "metrics.port": self._port("metrics.port", self.settings.metrics.port),
            "flower.port": self._port("flower.port", self.settings.flower.port),
            "gateway.port": self._port("gateway.port", self.settings.gateway.port),
            "exporter.port": self._port("exporter.port", self.settings.exporter.port),
        }
        if self._loaded.origins["redis.url"] == DEFAULT_ORIGIN:
            most = self.settings.redis.max_memory_bytes
            server = EmbeddedServer(self.folder / "valkey", free_port(6379), max_memory_bytes=most)
            self._cleanup.enter_context(server)
            ports["redis.url"] = server.url
        if not self.settings.flower.state_file:
            ports["flower.state_file"] = str(self.folder.absolute() / "flower" / "state")
        overrides = dict(self.overrides) | ports
        self._loaded = self._load(overrides)
        self._prepare_flower()
        file = ["--config", str(self.config_file)] if self.config_file else []
        pairs = [
            part
            for name, value in overrides.items()
            if name != "redis.url"
            for part in ("--set", f"{name}={json.dumps(value)}")
        ]
        # The address may hold a password, which ps must not show.
        address = {"FLEET_REDIS_URL": self.settings.redis.url}
        command = [sys.executable, "-m", "workers", *file, *pairs]
        grace_seconds = self.settings.worker.drain_timeout_seconds + 30
        self._workers = self._run(command, "worker.log", address, grace_seconds)
        self._run(flower_command(), "flower.log", flower_environment(self.settings), FLOWER_STOP_SECONDS)
        self._run(exporter_command(), "exporter.log", exporter_environment(self.settings), EXPORTER_STOP_SECONDS)
        stop_seconds = self.settings.gateway.shutdown_timeout_seconds + GATEWAY_STOP_SECONDS
        self._run(gateway_command(self.settings), "gateway.log", gateway_environment(self.settings), stop_seconds)

    def _port(self, name: str, wanted: int) -> int:
        """The port, or a free one where nobody asked for this one in particular."""
        port = free_port(wanted)
        origin = self._loaded.origins[name]
        if port == wanted or origin == DEFAULT_ORIGIN:
            return port
        raise StackFailed(
            f"{name} is {wanted} ({origin}), and somebody listens there already: name another, or none, and a free "
            "one is taken"
        )

    def _prepare_flower(self) -> None:
        try:
            prepare_state(self.settings)
        except StateUnusable as error:
            raise StackFailed(str(error)) from error

    def _run(
        self, command: list[str], log_name: str, environ: Mapping[str, str], stop_seconds: float
    ) -> "subprocess.Popen[bytes]":
        with (self.folder / log_name).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environ, start_new_session=True
            )
        self._cleanup.callback(_stop, process, stop_seconds)
        return process

    def wait_until_ready(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Return when the worker takes jobs; ``on_wait`` is called a few times a second.

        Raises:
            StackFailed: the worker ended first.
        """
        while not page_is_ok(f"{self.metrics_url}/ready"):
            if self._workers is None or self._workers.poll() is not None:
                raise StackFailed(f"the worker ended before it was ready:\n{self.last_words('worker.log')}")
            on_wait()
            time.sleep(POLL_SECONDS)

    def last_words(self, log_name: str) -> str:
        """The end of a log."""
        lines = (self.folder / log_name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    @property
    def metrics_url(self) -> str:
        """Base address of the first worker's pages."""
        return f"http://{self.settings.metrics.host}:{self.settings.metrics.port}"

    @property
    def flower_url(self) -> str:
        """Flower's address."""
        return flower_url(self.settings)

    @property
    def exporter_url(self) -> str:
        """Base address of the exporter's pages."""
        return exporter_url(self.settings)

    @property
    def gateway_url(self) -> str:
        """The HTTP gateway's address."""
        return gateway_url(self.settings)


def free_port(wanted: int) -> int:
    """``wanted``, or another port when somebody listens on it already."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StackFailed("no free port on 127.0.0.1")


def page_is_ok(url: str) -> bool:
    """Whether a page answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_SECONDS) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP OK
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
