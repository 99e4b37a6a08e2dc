"""``fleet keys``: who may call the gateway."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from producer.api_keys import Role
from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_producer import open_producer
from producer.cli_queues import number_or_none
from producer.rate_limits import RateLimits
from producer.registry import NO_LIMIT

keys = typer.Typer(no_args_is_help=True, help="Keys of the HTTP gateway.")


RequestsPerMinute = Annotated[str, typer.Option(metavar="N|none", help="Most requests a minute that submit jobs.")]
TokensPerMinute = Annotated[str, typer.Option(metavar="N|none", help="Most tokens a minute, of prompts and outputs.")]


@dataclass(frozen=True, slots=True)
class NewKey:
    """What ``fleet keys create`` takes."""

    name: Annotated[str, typer.Argument()]
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it submits; its own name's unless given.")] = None
    role: Annotated[Role, typer.Option(help="An operator sees every job and submits for any tenant.")] = Role.PRODUCER
    requests_per_minute: RequestsPerMinute = NO_LIMIT
    tokens_per_minute: TokensPerMinute = NO_LIMIT
    redis_url: RedisUrl = DEFAULT_REDIS_URL


@keys.command("create")
@takes(NewKey)
def create(new: NewKey) -> None:
    """Make a key and print it: this once, for Redis holds its hash alone."""
    limits = _limits(new.requests_per_minute, new.tokens_per_minute)
    with open_producer(new.redis_url) as producer:
        typer.echo(producer.create_key(new.name, role=new.role, tenant=new.tenant, limits=limits))


@keys.command("limit")
def limit(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    requests_per_minute: RequestsPerMinute = NO_LIMIT,
    tokens_per_minute: TokensPerMinute = NO_LIMIT,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Bound what a key may ask for a minute, or lift the bounds that are not named; gateways notice within seconds."""
    with open_producer(redis_url) as producer:
        producer.limit_key(key_id, _limits(requests_per_minute, tokens_per_minute))


@keys.command("list")
def show(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print every key's id, name, role and tenant, when it was made, and its requests and tokens a minute."""
    with open_producer(redis_url) as producer:
        for key in producer.api_keys():
            made = datetime.fromtimestamp(key.created_at, UTC).isoformat(timespec="seconds")
            typer.echo(f"{key.key_id}\t{key.name}\t{key.role}\t{key.tenant or '-'}\t{made}\t{_shown(key.limits)}")


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Let a key open nothing any more; gateways notice within seconds."""
    with open_producer(redis_url) as producer:
        producer.revoke_key(key_id)


def _limits(requests_per_minute: str, tokens_per_minute: str) -> RateLimits:
    return RateLimits(
        number_or_none("--requests-per-minute", requests_per_minute),
        number_or_none("--tokens-per-minute", tokens_per_minute),
    )


def _shown(limits: RateLimits) -> str:
    both = (limits.requests_per_minute, limits.tokens_per_minute)
    return "\t".join(NO_LIMIT if limit is None else str(limit) for limit in both)
