"""``fleet doctor``: is this Redis fit to be the fleet's, and what is in its queues."""

from collections.abc import Iterable

import typer

from producer.cli_options import DEFAULT_REDIS_URL, REDIS_URL_VARIABLE, RedisUrl
from producer.cli_producer import open_client
from producer.connection import address, asking
from producer.doctor import Finding, Level, check_server
from producer.errors import FleetUnreachable
from producer.queue_counts import QueueCounts, count_queues
from producer.refusals import advice
from producer.server_latency import check_latency


def doctor(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Check that a Redis server keeps what it is given, and count what is queued; exit code 1 when it is refused."""
    findings, queues = examine(redis_url)
    for line in (*finding_lines(findings), *queue_lines(queues)):
        typer.echo(line)
    if any(finding.level is Level.REFUSED for finding in findings):
        raise typer.Exit(1)


def examine(redis_url: str) -> tuple[list[Finding], list[QueueCounts]]:
    """What there is to say about a server, and what waits there; nothing waits where nobody can be asked."""
    with open_client(redis_url) as client:
        try:
            with asking(redis_url):
                reached = Finding(Level.OK, "reachable", address(redis_url))
                return [reached, *check_server(client), check_latency(client)], count_queues(client)
        except FleetUnreachable as error:
            todo = (
                ""
                if advice(error.__cause__)
                else f": start it, or name another with --redis-url or {REDIS_URL_VARIABLE}"
            )
            return [Finding(Level.REFUSED, "reachable", f"{error}{todo}")], []


def finding_lines(findings: Iterable[Finding]) -> Iterable[str]:
    """One line each."""
    return (f"{finding.level.value:<8} {finding.subject:<17} {finding.sentence}" for finding in findings)


def queue_lines(queues: Iterable[QueueCounts]) -> Iterable[str]:
    """One line each."""
    for counts in queues:
        yield (
            f"queue    {counts.model:<17} {counts.waiting} waiting, {counts.leased} leased, {counts.delayed} delayed, "
            f"{counts.suspect} suspect, {counts.dead} dead"
        )
