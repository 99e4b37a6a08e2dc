"""A server with the users of the containers' Redis (``deploy/compose/users.acl.in``), and who was refused what."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.running import FLEET
from tests.waiting import free_port
from workers.embedded import EmbeddedServer

MAKE_SECRETS = Path(__file__).parents[1] / "deploy/compose/make_secrets.sh"


@dataclass(frozen=True)
class Guarded:
    """A server with the users of the stack, and one that sees what they were refused."""

    secrets: Path
    address: str
    admin: "redis.Redis"

    def url(self, user: str) -> str:
        """The address as this user's secret has it, but for the place."""
        return (self.secrets / f"redis_url_{user}").read_text().strip().replace("redis:6379", self.address)

    def client(self, user: str) -> "redis.Redis":
        """A connection of this user."""
        return redis.Redis.from_url(self.url(user))

    def refusals(self) -> list[tuple[str, str, str]]:
        """User, reason and object of everything that was refused."""
        return [(entry["username"], entry["reason"], entry["object"]) for entry in self.admin.acl_log()]


@contextmanager
def guarded_server(folder: Path) -> Iterator[Guarded]:
    """With what ``make_secrets.sh`` made."""
    secrets, port = folder / "secrets", free_port()
    subprocess.run([MAKE_SECRETS, secrets], check=True, capture_output=True)
    with EmbeddedServer(folder / "valkey", port) as valkey:
        with redis.Redis.from_url(valkey.url) as first:
            first.execute_command("ACL", "SETUSER", "admin", "on", ">admin", "~*", "&*", "+@all")
        with redis.Redis.from_url(valkey.url, username="admin", password="admin", decode_responses=True) as admin:  # noqa: S106
            for line in (secrets / "redis_users").read_text().splitlines():
                admin.execute_command("ACL", "SETUSER", *line.split()[1:])
            admin.acl_log_reset()
            guarded = Guarded(secrets, f"127.0.0.1:{port}", admin)
            try:
                yield guarded
            finally:
                print(guarded.refusals())  # noqa: T201 - pytest shows it where a test fails


def fleet(server: Guarded, *arguments: str) -> str:
    """What the command prints to an operator, who has its address from the file as in a container."""
    file = server.secrets.parent / "redis_url_here"
    file.write_text(server.url("operator") + "\n")
    environ = {name: value for name, value in os.environ.items() if name != "FLEET_REDIS_URL"}
    run = subprocess.run(
        [*FLEET, *arguments],
        env=environ | {"FLEET_REDIS_URL_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
