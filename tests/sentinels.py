"""A server with a replica, and a sentinel that watches them: what a failover needs, as real processes."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

MASTER = "fleet"
NOBODY = "127.0.0.1:1"
DOWN_AFTER_MS = 1_000
FAILOVER_TIMEOUT_MS = 2_000
FAILOVER_SECONDS = 60.0
"""A sentinel that was kept from running for two seconds does nothing for thirty."""


@dataclass
class GuardedServer(EmbeddedServer):
    """Perhaps with a password."""

    password: str = ""

    @property
    def url(self) -> str:
        """Address for clients."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    def ask(self, *command: object) -> Any:  # noqa: ANN401 - whatever the server replies
        """One command on a connection of its own."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return client.execute_command(*command)


@dataclass
class ConfiguredServer(GuardedServer):
    """With further options."""

    options: Mapping[str, object] = field(default_factory=dict)

    def _command(self) -> list[str]:
        options = dict(self.options)
        if self.password:
            options |= {"requirepass": self.password, "masterauth": self.password}
        return [*super()._command(), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def replication(self) -> dict[str, Any]:
        """What the server says of its part."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return dict(client.info("replication"))

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


@dataclass
class SentinelProcess(GuardedServer):
    """One sentinel over the server on ``master_port``; its word alone decides."""

    master_port: int = 0
    master_password: str = ""

    def _command(self) -> list[str]:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{self.folder.resolve()}"',
            f"sentinel monitor {MASTER} 127.0.0.1 {self.master_port} 1",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} {FAILOVER_TIMEOUT_MS}",
        ]
        if self.master_password:
            lines.append(f"sentinel auth-pass {MASTER} {self.master_password}")
        if self.password:
            lines.append(f"requirepass {self.password}")
        configuration = self.folder / "sentinel.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return [super()._command()[0], str(configuration), "--sentinel"]

    def _answers(self, client: "redis.Redis") -> bool:
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


@dataclass
class ReplicatedServers:
    """A primary, its replica and a sentinel."""

    primary: ConfiguredServer
    replica: ConfiguredServer
    sentinel: SentinelProcess

    @classmethod
    @contextmanager
    def started(
        cls,
        folder: Path,
        options: Mapping[str, object] | None = None,
        *,
        password: str = "",
        sentinel_password: str = "",
    ) -> Iterator[Self]:
        """All three, in step: what is written now is replicated, and the sentinel could make the replica a master."""
        options = {"repl-diskless-sync-delay": 0} | dict(options or {})
        primary = ConfiguredServer(folder / "one", free_port(), options=options, password=password)
        following = {"replicaof": f"127.0.0.1 {primary.port}"}
        replica = ConfiguredServer(folder / "two", free_port(), options=options | following, password=password)
        sentinel = SentinelProcess(
            folder / "sentinel",
            free_port(),
            master_port=primary.port,
            master_password=password,
            password=sentinel_password,
        )
        servers = cls(primary, replica, sentinel)
        with ExitStack() as stack:
            stack.enter_context(primary)
            stack.enter_context(replica)
            eventually(servers.is_in_step, what="the replica follows")
            stack.enter_context(sentinel)
            eventually(servers._is_watched, what="the sentinel knows the replica", seconds=FAILOVER_SECONDS)
            yield servers

    @property
    def url(self) -> str:
        """Address for clients; the first of its sentinels is down."""
        login = f":{self.primary.password}@" if self.primary.password else ""
        option = f"?sentinel_password={self.sentinel.password}" if self.sentinel.password else ""
        return f"sentinel://{login}{NOBODY},127.0.0.1:{self.sentinel.port}/{MASTER}/0{option}"

    def is_in_step(self) -> bool:
        """Whether the replica has all that the primary has written."""
        written, read = self.primary.replication(), self.replica.replication()
        is_linked = read["master_link_status"] == "up" and read["master_sync_in_progress"] == 0
        return bool(is_linked and read["slave_repl_offset"] == written["master_repl_offset"])

    def _is_watched(self) -> bool:
        with redis.Redis.from_url(self.sentinel.url) as client:
            replicas: Any = client.sentinel_slaves(MASTER)
        return [replica["flags"] for replica in replicas] == ["slave"] and replicas[0]["master-link-status"] == "ok"

    def cut_replication(self) -> None:
        """From now on the replica misses what is written."""
        self.replica.pause()  # first: it would connect again
        self.primary.ask("CLIENT", "KILL", "TYPE", "replica")

    def swap(self) -> None:
        """Make the primary its replica's replica. No connection is closed: who has one finds out by ``READONLY``."""
        self.replica.ask("REPLICAOF", "NO", "ONE")
        self.primary.ask("REPLICAOF", "127.0.0.1", self.replica.port)
        self.sentinel.ask("SENTINEL", "REMOVE", MASTER)
        self.sentinel.ask("SENTINEL", "MONITOR", MASTER, "127.0.0.1", self.replica.port, 1)

    def wait_for_failover(self) -> None:
        """Return when the replica is the master and the sentinel says so."""
        eventually(self._has_taken_over, what="the replica is the master", seconds=FAILOVER_SECONDS)

    def _has_taken_over(self) -> bool:
        try:
            return self.replica.replication()["role"] == "master" and self.master_port == self.replica.port
        except redis.exceptions.ConnectionError:  # a server that changes its part closes every connection
            return False

    @property
    def master_port(self) -> int:
        """Of the server that the sentinel calls the master."""
        with redis.Redis.from_url(self.sentinel.url) as client:
            masters: Any = client.sentinel_masters()
        return int(masters[MASTER]["port"])
