"""A real Redis that speaks TLS, and the certificates that make it trusted or not."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
import redis
import trustme

from tests.waiting import eventually, free_port

REQUIRED: Final = "REQUIRE_TLS_SERVER"
SERVERS: Final = ("valkey-server", "redis-server")
MISSING: Final = "no Redis or Valkey with TLS is installed: apt-get install redis-server (or valkey-server)"
PASSWORD: Final = "se/sa@me#1?"  # noqa: S105 - of a test's server; every character of it must be encoded
UNKNOWN_TO_OLDER: Final = "+client|setinfo "
"""Of Redis 7.2 and Valkey; Debian's 7.0 has no such command and refuses a list of users that names it."""


def server_with_tls() -> str:
    """The program; skips the test where there is none, unless it has to be there."""
    for name in SERVERS:
        path = shutil.which(name)
        if path is not None and "libssl" in subprocess.run(["ldd", path], capture_output=True, text=True).stdout:  # noqa: PLW1510 - a static one says no
            return path
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(MISSING)
    pytest.skip(MISSING)


@dataclass(frozen=True)
class Certificates:
    """Files of a CA, of a server that it vouches for, and of a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def made(cls, folder: Path, *names: str, not_after: datetime | None = None) -> "Certificates":
        """For a server of these names; ``not_after`` is when its certificate ends."""
        folder.mkdir()
        authority = trustme.CA()
        files = cls(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))
        authority.cert_pem.write_to_path(files.ca)
        begins = None if not_after is None else not_after - timedelta(days=1)
        server = authority.issue_cert(*names, not_before=begins, not_after=not_after)
        client = authority.issue_cert("app@example.org")
        for made, certificate, key in (
            (server, files.server, files.server_key),
            (client, files.client, files.client_key),
        ):
            certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
            made.private_key_pem.write_to_path(key)
        return files


@dataclass(frozen=True)
class TlsServer:
    """One that listens with TLS alone."""

    port: int
    certificates: Certificates

    def url(self, user: str = "default", password: str = PASSWORD, host: str = "localhost", **options: object) -> str:
        """Its address; trusted by its CA unless the options say otherwise."""
        chosen = {"ssl_ca_certs": self.certificates.ca} | options
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in chosen.items() if value is not None)
        return f"rediss://{user}:{quote(password, safe='')}@{host}:{self.port}/0?{query}"


@contextmanager
def running_tls_server(
    folder: Path, certificates: Certificates, *, asks_clients: bool = False, acl: Callable[[], str] | None = None
) -> Iterator[TlsServer]:
    """``acl`` gives a list of users; without it there is one with ``PASSWORD``."""
    port = free_port()
    data = folder / "tls-server"
    data.mkdir()
    lines = ["maxmemory-policy noeviction", f"aclfile {data}/users.acl"]
    lines += [f"tls-port {port}", "port 0", "bind 127.0.0.1", f"dir {data}", "save ''", "appendonly yes"]
    lines += [f"tls-cert-file {certificates.server}", f"tls-key-file {certificates.server_key}"]
    lines += [f"tls-ca-cert-file {certificates.ca}", f"tls-auth-clients {'yes' if asks_clients else 'no'}"]
    users = f"user default on >{PASSWORD} ~* &* +@all\n" if acl is None else acl().replace(UNKNOWN_TO_OLDER, "")
    (data / "users.acl").write_text(users)
    (data / "redis.conf").write_text("\n".join([*lines, ""]))
    with (folder / "tls-server.log").open("wb") as log:
        process = subprocess.Popen([server_with_tls(), data / "redis.conf"], stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _speaks(port), what="the server speaks TLS")
        assert process.poll() is None, (folder / "tls-server.log").read_text()
        yield TlsServer(port, certificates)
    finally:
        process.terminate()
        process.wait(30)


def _speaks(port: int) -> bool:
    try:
        with redis.Redis(port=port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False) as stranger:
            stranger.ping()
    except redis.exceptions.AuthenticationError:
        return True
    except redis.exceptions.RedisError as error:
        return "certificate required" in str(error)
    return True


LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
