"""``fleet stream``: a job's text while it is generated."""

from collections.abc import Iterable
from typing import Annotated

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer
from producer.stream_reading import StreamDelta, StreamEvent, StreamRestarted


def stream(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Print the text of a job while it is generated: of its first choice, if it has several."""
    with open_producer(redis_url) as producer:
        producer.status(job_id)  # a server that is not there at all is told at once; later, an outage is waited for
        print_stream(producer.stream(job_id))


def print_stream(events: Iterable[StreamEvent]) -> None:
    """Print the first choice's text as it comes; a restart begins on a new line, and standard error says so."""
    for event in events:
        if isinstance(event, StreamRestarted):
            typer.echo()
            typer.echo("fleet: the worker died, and the answer begins anew", err=True)
        if isinstance(event, StreamDelta):
            typer.echo("".join(delta.text for delta in event.choices if delta.index == 0), nl=False)
    typer.echo()
