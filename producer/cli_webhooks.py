"""``fleet webhooks``: deliver them, see what waits, tell it again, and the secrets that sign them."""

import asyncio
import logging
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_producer import open_client, open_producer
from producer.errors import InvalidRequest, UnknownWebhook
from producer.logs.options import LogOptions
from producer.logs.setting_up import set_up_logging
from producer.webhooks.operations import KEEP_SECONDS
from producer.webhooks.outbox import WebhookEvent, WebhookState
from producer.webhooks.retrying import FIRST_SECONDS, MOST_ATTEMPTS, Retrying

log = logging.getLogger(__name__)

ALLOW_HOSTS_VARIABLE = "FLEET_GATEWAY__WEBHOOK_ALLOW_HOSTS"
ALLOW_HOSTS_HELP = "Hosts, by name, that webhooks may go to whatever their address; commas part them."
PAGE_EVENTS = 100

webhooks = typer.Typer(no_args_is_help=True, help="Webhooks of jobs: deliver, list, replay, and their secrets.")
secrets = typer.Typer(no_args_is_help=True, help="What a tenant's webhooks are signed with.")
webhooks.add_typer(secrets, name="secret")

Tenant = Annotated[str | None, typer.Argument(metavar="TENANT", help="Jobs that have none, unless given.")]


@dataclass(frozen=True, slots=True)
class DeliverOptions(LogOptions):
    """What ``fleet webhooks deliver`` takes."""

    allow_hosts: Annotated[str, typer.Option(envvar=ALLOW_HOSTS_VARIABLE, help=ALLOW_HOSTS_HELP)] = ""
    timeout_seconds: Annotated[float, typer.Option(min=0.1, max=600, help="For one attempt.")] = 15.0
    attempts: Annotated[int, typer.Option(min=1, help="Before an event is given up.")] = MOST_ATTEMPTS
    first_retry_seconds: Annotated[
        float, typer.Option(min=0.01, help="Pause after the first failure; each is four times the one before.")
    ] = FIRST_SECONDS
    redis_url: RedisUrl = DEFAULT_REDIS_URL


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What ``fleet webhooks replay`` takes."""

    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As the list names them.")] = None
    every: Annotated[bool, typer.Option("--all", help="Every one that was given up.")] = False
    redis_url: RedisUrl = DEFAULT_REDIS_URL


@webhooks.command("deliver")
@takes(DeliverOptions)
def deliver(options: DeliverOptions) -> None:
    """Tell webhooks until Ctrl-C; any number of these may run, and gateways do it too."""
    open_client(options.redis_url).close()
    try:
        asyncio.run(_deliver(options))
    except ImportError as error:
        raise InvalidRequest(
            f"the deliverer's packages are missing ({error.name}): pip install 'inference-fleet-producer[gateway]'"
        ) from error


async def _deliver(options: DeliverOptions) -> None:
    from producer.webhooks.addresses import AddressPolicy, host_names
    from producer.webhooks.deliverer import DeliveryOptions, delivering

    set_up_logging(options, "webhooks", file="webhooks")
    retrying = Retrying(first_seconds=options.first_retry_seconds, most_attempts=options.attempts)
    policy = AddressPolicy(host_names(options.allow_hosts))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with delivering(options.redis_url, DeliveryOptions(policy, retrying, options.timeout_seconds)):
        log.info("webhooks are delivered from here", extra={"action": "deliverer_ready"})
        await stopped.wait()


@webhooks.command("list")
def show(
    state: Annotated[WebhookState, typer.Option(help="To be told yet, or given up.")] = WebhookState.PENDING,
    limit: Annotated[int, typer.Option(help="Most to print.", min=1)] = PAGE_EVENTS,
    offset: Annotated[int, typer.Option(help="Webhooks to leave out first.", min=0)] = 0,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Print for each its id, where it stands, tenant, moment (next attempt, or given up), attempts, URL and error."""
    with open_producer(redis_url) as producer:
        events = producer.webhooks(state, limit=limit + 1, offset=offset)
    for line in _lines(events[:limit]):
        typer.echo(line)
    if len(events) > limit:
        typer.echo(f"there are more: --offset {offset + limit}", err=True)


@webhooks.command("replay")
@takes(ReplayOptions)
def replay(options: ReplayOptions) -> None:
    """Tell webhooks at once, with all their attempts before them; exit code 1 when one is unknown."""
    if bool(options.ids) == options.every:
        raise typer.BadParameter("give either ids or --all")
    unknown = False
    with open_producer(options.redis_url) as producer:
        ids = options.ids or [event.event_id for event in producer.webhooks(WebhookState.DEAD, limit=1_000_000)]
        for event_id in ids:
            try:
                typer.echo(f"{event_id}\t{'due' if producer.replay_webhook(event_id) else 'being told'}")
            except UnknownWebhook as error:
                typer.echo(f"fleet: {error}", err=True)
                unknown = True
    if unknown:
        raise typer.Exit(1)


@secrets.command("create")
def create(tenant: Tenant = None, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Make a tenant's first secret and print it; from then on its jobs may have webhooks."""
    with open_producer(redis_url) as producer:
        typer.echo(producer.create_webhook_secret(tenant))


@secrets.command("rotate")
def rotate(
    tenant: Tenant = None,
    keep_seconds: Annotated[float, typer.Option(min=0, help="How long the old one signs too.")] = KEEP_SECONDS,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Make another secret and print it; the old one signs beside it for a while."""
    with open_producer(redis_url) as producer:
        typer.echo(producer.rotate_webhook_secret(tenant, keep_seconds=keep_seconds))


@secrets.command("list")
def list_secrets(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print each tenant's secrets: when they were made, and until when they sign; not the secrets themselves."""
    with open_producer(redis_url) as producer:
        for tenant, known in producer.webhook_secrets().items():
            for one in known:
                until = "in force" if one.signs_until is None else f"until {_moment(one.signs_until)}"
                typer.echo(f"{tenant or '-'}\t{_moment(one.made_at)}\t{until}")


@secrets.command("delete")
def delete(tenant: Tenant = None, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Remove a tenant's secrets: its jobs may have no webhooks any more, and those that wait are given up."""
    with open_producer(redis_url) as producer:
        if not producer.delete_webhook_secret(tenant):
            raise InvalidRequest(f"there is no secret of {'jobs without a tenant' if tenant is None else tenant}")


def _lines(events: Iterable[WebhookEvent]) -> Iterable[str]:
    for event in events:
        moment = "-" if event.moment is None else _moment(event.moment)
        facts = (event.event_id, event.kind, event.tenant or "-", moment, str(event.attempts), event.url, event.wrong)
        yield "\t".join(facts).rstrip()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
