"""The ``fleet`` command of a producer's install: jobs, models, queues, tenants, dead letters; others add theirs.

A package adds a command with an entry point of the group ``inference_fleet.commands``, which has the command's name
and is a callable ``register(app: typer.Typer) -> None``. Only that of the command that is asked for is imported.
"""

import sys
from collections.abc import Container, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Final

import typer

from producer.cli_conversation import conversation
from producer.cli_dead import dead
from producer.cli_doctor import doctor
from producer.cli_gateway import gateway
from producer.cli_keys import keys
from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer
from producer.cli_queues import queues
from producer.cli_stream import stream
from producer.cli_submit import submit
from producer.cli_tenants import tenants
from producer.cli_webhooks import webhooks
from producer.cli_workers import workers
from producer.errors import FleetError, InvalidRequest
from producer.jobs import JobStatus

COMMAND_GROUP: Final = "inference_fleet.commands"


def result(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for it.", min=0)] = 0,
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Print the text of a job's result."""
    with open_producer(redis_url) as producer:
        for choice in producer.result(job_id, timeout_seconds=wait).choices:
            typer.echo(choice.text)


def status(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Print where a job stands, one fact per line; times are seconds since the epoch."""
    with open_producer(redis_url) as producer:
        for line in _lines(producer.status(job_id)):
            typer.echo(line)


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
) -> None:
    """Stop a job, queued or running, and print what it found: cancelled, already_cancelled or ended."""
    with open_producer(redis_url) as producer:
        typer.echo(producer.cancel(job_id).value)


def _lines(known: JobStatus) -> Iterable[str]:
    failure = f"{known.failure.code}: {known.failure.message}" if known.failure else None
    facts = {
        "job": known.job_id,
        "state": known.state.value,
        "model": known.model,
        "enqueued_at": known.enqueued_at,
        "started_at": known.started_at,
        "worker": known.worker,
        "attempt": known.attempt,
        "ended_at": known.ended_at,
        "failure": failure,
    }
    return (f"{name:<12} {value}" for name, value in facts.items() if value is not None)


models = typer.Typer(no_args_is_help=True, help="The models that jobs may name.")


@models.command("list")
def list_models(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print each known model and who declared it."""
    with open_producer(redis_url) as producer:
        for name, declared in producer.models().items():
            typer.echo(f"{name}\t{declared.declared_by}")
        for alias, model in producer.aliases().items():
            typer.echo(f"{alias}\talias of {model}")


@models.command("declare")
def declare_model(name: str, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Let jobs name a model before a worker has served it."""
    with open_producer(redis_url) as producer:
        producer.declare_model(name)


@models.command("forget")
def forget_model(name: str, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Refuse further jobs for a model; jobs that wait stay queued."""
    with open_producer(redis_url) as producer:
        if not producer.forget_model(name):
            raise InvalidRequest(f"no model {name!r} is known")


@models.command("alias")
def alias_model(alias: str, model: str, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Let jobs name a model by another name too."""
    with open_producer(redis_url) as producer:
        producer.set_alias(alias, model)


@models.command("unalias")
def forget_alias(alias: str, redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Refuse further jobs under another name of a model."""
    with open_producer(redis_url) as producer:
        if not producer.forget_alias(alias):
            raise InvalidRequest(f"no model has the other name {alias!r}")


def build_app(commands: Iterable[EntryPoint], asked_for: str | None = None) -> typer.Typer:
    """The command line; an entry point that does not work costs one line on standard error, not the rest.

    It has the other packages' commands too, all of them unless ``asked_for`` is one of theirs or ours.
    """
    app = typer.Typer(
        name="fleet",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Batched LLM generation over Redis: submit jobs, fetch results, run workers.",
    )
    app.command()(submit)
    app.command()(result)
    app.command()(stream)
    app.command()(status)
    app.command()(cancel)
    app.command()(gateway)
    app.command()(workers)
    app.command()(doctor)
    app.add_typer(models, name="models")
    app.add_typer(queues, name="queues")
    app.add_typer(tenants, name="tenants")
    app.add_typer(keys, name="keys")
    app.add_typer(conversation, name="conversation")
    app.add_typer(dead, name="dead")
    app.add_typer(webhooks, name="webhooks")
    for command in _needed(list(commands), asked_for, _names(app)):
        try:
            command.load()(app)
        except Exception as error:  # noqa: BLE001 - whatever a foreign package raises must not cost the other commands
            typer.echo(f"fleet: the commands of {_package(command)} are missing: {_one_line(error)}", err=True)
    return app


def _needed(commands: Sequence[EntryPoint], asked_for: str | None, own: Container[str | None]) -> Sequence[EntryPoint]:
    named = [command for command in commands if command.name == asked_for]
    return named if named or asked_for in own else commands


def _names(app: typer.Typer) -> set[str | None]:
    commands = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]
    return {*commands, *(group.name for group in app.registered_groups)}


def main() -> None:
    """The console script: an error of the fleet is one line on standard error and exit code 1."""
    try:
        build_app(entry_points(group=COMMAND_GROUP), next(iter(sys.argv[1:]), None))()
    except FleetError as error:
        typer.echo(f"fleet: {_one_line(error)}", err=True)
        sys.exit(1)


def _package(command: EntryPoint) -> str:
    return command.dist.name if command.dist is not None else command.module.split(".")[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()
