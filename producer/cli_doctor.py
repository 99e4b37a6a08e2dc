"""``fleet doctor``: is this Redis fit to be the fleet's, and what is in its queues."""

from collections.abc import Iterable

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_client
from producer.connection import address, asking
from producer.doctor import Finding, Level, check_server
from producer.errors import FleetUnreachable
from producer.queue_counts import QueueCounts, count_queues


def doctor(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Check that a Redis server keeps what it is given, and count what is queued; exit code 1 when it is refused."""
    findings, queues = _examine(redis_url)
    for finding in findings:
        typer.echo(f"{finding.level.value:<8} {finding.subject:<17} {finding.sentence}")
    for line in _lines(queues):
        typer.echo(line)
    if any(finding.level is Level.REFUSED for finding in findings):
        raise typer.Exit(1)


def _examine(redis_url: str) -> tuple[list[Finding], list[QueueCounts]]:
    with open_client(redis_url) as client:
        try:
            with asking(redis_url):
                reached = Finding(Level.OK, "reachable", address(redis_url))
                return [reached, *check_server(client)], count_queues(client)
        except FleetUnreachable as error:
            return [Finding(Level.REFUSED, "reachable", str(error))], []


def _lines(queues: Iterable[QueueCounts]) -> Iterable[str]:
    for counts in queues:
        yield (
            f"queue    {counts.model:<17} {counts.waiting} waiting, {counts.leased} leased, {counts.delayed} delayed, "
            f"{counts.suspect} suspect, {counts.dead} dead"
        )
