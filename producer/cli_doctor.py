"""``fleet doctor``: is this Redis fit to be the fleet's, and what is in its queues."""

from collections.abc import Iterable

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.connection import (
    CONNECT_TIMEOUT_SECONDS,
    SOCKET_TIMEOUT_SECONDS,
    address,
    asking,
)
from producer.doctor import Finding, Level, check_server
from producer.errors import FleetUnreachable, InvalidRequest
from producer.queue_counts import QueueCounts, count_queues
from producer.redis_client import connect


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
    try:
        client = connect(
            redis_url,
            connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
            socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS,
        )
    except ValueError as error:
        raise InvalidRequest(f"--redis-url: {error}") from error
    with client:
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
