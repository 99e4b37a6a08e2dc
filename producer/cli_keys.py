"""``fleet keys``: who may call the gateway."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from producer.api_keys import Role
from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer

keys = typer.Typer(no_args_is_help=True, help="Keys of the HTTP gateway.")


@keys.command("create")
def create(
    name: str,
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it submits; its own name's unless given.")] = None,
    role: Annotated[Role, typer.Option(help="An operator sees every job and submits for any tenant.")] = Role.PRODUCER,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Make a key and print it: this once, for Redis holds its hash alone."""
    with open_producer(redis_url) as producer:
        typer.echo(producer.create_key(name, role=role, tenant=tenant))


@keys.command("list")
def show(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print every key's id, name, role and tenant, and when it was made."""
    with open_producer(redis_url) as producer:
        for key in producer.api_keys():
            made = datetime.fromtimestamp(key.created_at, UTC).isoformat(timespec="seconds")
            typer.echo(f"{key.key_id}\t{key.name}\t{key.role}\t{key.tenant or '-'}\t{made}")


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Let a key open nothing any more; gateways notice within seconds."""
    with open_producer(redis_url) as producer:
        producer.revoke_key(key_id)
