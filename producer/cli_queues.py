"""``fleet queues``: what waits where, and how much may."""

from collections.abc import Iterable
from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_client, open_producer
from producer.cli_table import table
from producer.connection import asking
from producer.errors import InvalidRequest
from producer.queue_counts import QueueCounts, count_queues
from producer.registry import NO_LIMIT

COLUMNS = ("MODEL", "WAITING", "LIMIT", "LEASED", "DELAYED", "SUSPECT", "DEAD")

queues = typer.Typer(help="The queues of all models: what waits where, and how much may.")


@queues.callback(invoke_without_command=True)
def show(context: typer.Context, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print a table of the queues; LIMIT is the most jobs that may wait."""
    if context.invoked_subcommand is None:
        with open_client(redis_url) as client, asking(redis_url):
            counted = count_queues(client)
        for line in table(COLUMNS, _rows(counted), texts=1):
            typer.echo(line)


@queues.command("limit")
def limit(
    model: str,
    max_waiting_jobs: Annotated[
        str, typer.Option(metavar="N|none", help="Most jobs that may wait, over all lanes; 2,000,000 unless set.")
    ],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Bound how many jobs of a model may wait: producers are refused more, or wait for room."""
    with open_producer(redis_url) as producer:
        producer.set_queue_limit(model, number_or_none("--max-waiting-jobs", max_waiting_jobs))


def number_or_none(option: str, text: str) -> int | None:
    """The number that an option was given, or None for the word.

    Raises:
        InvalidRequest: it is neither.
    """
    if text == NO_LIMIT:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InvalidRequest(f"{option}: a whole number, or {NO_LIMIT!r}; not {text!r}") from error


def _rows(queues: Iterable[QueueCounts]) -> list[tuple[str, ...]]:
    return [
        (
            counts.model,
            str(counts.waiting),
            NO_LIMIT if counts.max_waiting is None else str(counts.max_waiting),
            str(counts.leased),
            str(counts.delayed),
            str(counts.suspect),
            str(counts.dead),
        )
        for counts in queues
    ]
