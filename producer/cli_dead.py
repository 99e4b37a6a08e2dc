"""``fleet dead``: look at dead letters, queue them again, or remove them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_producer import open_producer
from producer.dead_letters import DeadLetter
from producer.errors import NotReplayable, UnknownDeadLetter

PAGE_LETTERS: Final = 100


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """What ``fleet dead show`` takes."""

    letter_id: Annotated[str, typer.Argument(metavar="ID")]
    message: Annotated[bool, typer.Option("--message", help="Print the message too; it holds the prompt.")] = False
    redis_url: RedisUrl = DEFAULT_REDIS_URL


@dataclass(frozen=True, slots=True)
class Selection:
    """The letters that a command is for: some, or all."""

    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Letters, as the list names them.")] = None
    every: Annotated[bool, typer.Option("--all", help="Every letter that there is at this moment.")] = False
    redis_url: RedisUrl = DEFAULT_REDIS_URL

    def check(self) -> None:
        """Refuse both and neither.

        Raises:
            BadParameter: Typer's usage error.
        """
        if bool(self.ids) == self.every:
            raise typer.BadParameter("give either ids or --all")


dead = typer.Typer(no_args_is_help=True, help="Messages that were taken out of their queue: unreadable, or poisoned.")


@dead.command("list")
def list_letters(
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    limit: Annotated[int, typer.Option(help="Most letters to print.", min=1)] = PAGE_LETTERS,
    offset: Annotated[int, typer.Option(help="Letters to leave out first.", min=0)] = 0,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Print a table of dead letters, the latest first."""
    with open_producer(redis_url) as producer:
        # One more than asked for tells whether there are more.
        letters = producer.dead_letters(limit + 1, offset, model)
    for line in _table(letters[:limit]):
        typer.echo(line)
    if len(letters) > limit:
        typer.echo(f"there are more: --offset {offset + limit}", err=True)


@dead.command("show")
@takes(ShowOptions)
def show(options: ShowOptions) -> None:
    """Print one dead letter: one fact per line, then one attempt per line."""
    with open_producer(options.redis_url) as producer:
        letter = producer.dead_letter(options.letter_id)
    for line in _facts(letter):
        typer.echo(line)
    if options.message:
        typer.echo(letter.message)


@dead.command("replay")
@takes(Selection)
def replay(selection: Selection) -> None:
    """Queue letters again, the oldest first, and print the ids of their jobs; exit code 1 when one was refused."""
    selection.check()
    refused = False
    with open_producer(selection.redis_url) as producer:
        for letter_id in selection.ids or reversed(producer.dead_letter_ids()):
            try:
                typer.echo(producer.replay_dead_letter(letter_id))
            except (UnknownDeadLetter, NotReplayable) as error:
                typer.echo(f"fleet: {error}", err=True)
                refused = True
    if refused:
        raise typer.Exit(1)


@dead.command("purge")
@takes(Selection)
def purge(selection: Selection) -> None:
    """Remove letters for good and print how many; exit code 1 when one that was named does not exist."""
    selection.check()
    with open_producer(selection.redis_url) as producer:
        if selection.ids is None or selection.every:
            typer.echo(f"{producer.purge_all_dead_letters()} purged")
            return
        unknown = [letter_id for letter_id in selection.ids if not producer.purge_dead_letters([letter_id])]
    typer.echo(f"{len(selection.ids) - len(unknown)} purged")
    for letter_id in unknown:
        typer.echo(f"fleet: {UnknownDeadLetter(letter_id)}", err=True)
    if unknown:
        raise typer.Exit(1)


def _table(letters: Iterable[DeadLetter]) -> Iterable[str]:
    rows = [("ID", "MODEL", "CODE", "WHEN", "REASON")]
    rows += [(item.letter_id, item.model, item.code, _moment(item.buried_at), _one_line(item)) for item in letters]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _facts(letter: DeadLetter) -> Iterable[str]:
    facts = {
        "letter": letter.letter_id,
        "job": letter.job_id,
        "queue": letter.queue,
        "model": letter.model,
        "priority": letter.priority.value,
        "code": letter.code.value,
        "reason": letter.reason,
        "buried_at": _moment(letter.buried_at),
        "message": f"{len(letter.message):,} bytes",
    }
    yield from (f"{name:<12} {value}" for name, value in facts.items() if value is not None)
    for attempt in letter.history:
        yield (
            f"{'attempt':<12} delivery {attempt.delivery}, {_moment(attempt.claimed_at)} to {_moment(attempt.at)}, "
            f"{attempt.worker}: {attempt.event}"
        )


def _one_line(letter: DeadLetter) -> str:
    return " ".join(letter.reason.split())


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
