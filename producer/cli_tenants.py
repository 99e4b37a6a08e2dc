"""``fleet tenants``: how those who wait for one model share it."""

from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer
from producer.cli_queues import number_or_none
from producer.registry import NO_LIMIT

tenants = typer.Typer(help="Weights and limits of tenants.")


@tenants.callback(invoke_without_command=True)
def show(context: typer.Context, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print the tenants that have terms of their own; others have weight 1 and no limit."""
    if context.invoked_subcommand is None:
        with open_producer(redis_url) as producer:
            known = producer.tenants()
        typer.echo("TENANT  WEIGHT  MOST RUNNING JOBS  MOST WAITING JOBS")
        for name, terms in known.items():
            limits = (NO_LIMIT if most is None else most for most in (terms.max_running_jobs, terms.max_waiting_jobs))
            typer.echo(f"{name}  {terms.weight:g}  {'  '.join(map(str, limits))}")


@tenants.command("set")
def set_terms(
    tenant: str,
    weight: Annotated[float, typer.Option(help="Share of the tokens beside other tenants'.")] = 1.0,
    max_running_jobs: Annotated[
        str, typer.Option(metavar="N|none", help="Most jobs that workers hold at a time, for each model.")
    ] = NO_LIMIT,
    max_waiting_jobs: Annotated[
        str, typer.Option(metavar="N|none", help="Most jobs that wait, for each model; beyond, more are refused.")
    ] = NO_LIMIT,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Give a tenant a weight and limits, from its next job on."""
    running = number_or_none("--max-running-jobs", max_running_jobs)
    waiting = number_or_none("--max-waiting-jobs", max_waiting_jobs)
    with open_producer(redis_url) as producer:
        producer.set_tenant(tenant, weight=weight, max_running_jobs=running, max_waiting_jobs=waiting)


@tenants.command("forget")
def forget(tenant: str, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Give a tenant the terms of everybody again."""
    with open_producer(redis_url) as producer:
        if not producer.forget_tenant(tenant):
            typer.echo(f"{tenant} had no terms of its own", err=True)
            raise typer.Exit(1)
