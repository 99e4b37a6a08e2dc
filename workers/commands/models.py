"""``fleet models pull | preload | verify | remove``, and ``list --downloaded``: the models on this machine."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import ModelSettings
from producer.cli import list_models
from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_table import table
from workers.commands.fleet_options import ConfigOption
from workers.exit_codes import EXIT_CONFIGURATION

if TYPE_CHECKING:
    from workers.models.cache import CachedModel

GIGABYTE: Final = 1e9
SHOWN_DIGITS: Final = 12
"""Of a commit, where it is not what somebody copies."""

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="On the model hub; without it model.name.")]
RevisionOption = Annotated[str, typer.Option(help="Branch, tag or commit; without it model.revision of this model.")]
TokenFileOption = Annotated[
    Path | None, typer.Option(metavar="PATH", help="File that holds the hub's token; without it HF_TOKEN.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the producer's group ``models``."""
    group = next(found.typer_instance for found in app.registered_groups if found.name == "models")
    if group is None:
        raise LookupError("the group models has no commands")
    group.info.help = "The models that jobs may name, and those on this machine."
    group.command("list")(list_known)
    group.command("pull")(pull)
    group.command("preload")(preload)
    group.command("verify")(verify)
    group.command("remove")(remove)


def list_known(
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
    *,
    downloaded: Annotated[bool, typer.Option("--downloaded", help="Those in this machine's cache instead.")] = False,
) -> None:
    """Print each model that jobs may name and who declared it; or with --downloaded those on this machine."""
    if not downloaded:
        list_models(redis_url)
        return
    from workers.models.cache import cache_folder, cached_models

    found = cached_models()
    if not found:
        typer.echo(f"no models in {cache_folder()}")
        return
    rows = [
        (
            model.name,
            model.commit[:SHOWN_DIGITS] + "".join(f" {ref}" for ref in model.refs),
            _state(model),
            _day(model.used_at),
            f"{model.size_bytes / GIGABYTE:.3f}",
        )
        for model in found
    ]
    for line in table(("model", "revision", "state", "used", "GB"), rows, texts=4):
        typer.echo(line)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What ``fleet models pull`` takes."""

    name: NameArgument = ""
    revision: RevisionOption = ""
    token_file: TokenFileOption = None
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files to fetch; without it what vLLM needs.")
    ] = None
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Files to leave out.")] = None
    repair: Annotated[
        bool, typer.Option("--repair", help="Read what is here, and fetch anew what the hub has differently.")
    ] = False
    config: ConfigOption = None


@takes(PullOptions)
def pull(options: PullOptions) -> None:
    """Fetch a model from the hub into this machine's cache; what is here already is not fetched again."""
    with _one_line_errors("pull"):
        model = _asked(options.name, options.revision, options.config)
        from workers.models.folder import names_folder
        from workers.models.hub import ModelError

        if names_folder(model.name):
            raise ModelError(f"{model.name} is a folder on this machine: there is nothing to pull")
        found = _pull(model, options)
        typer.echo(f"{found.name} is here, in {found.folder}")
        if model.revision != found.commit:
            typer.echo(f'to serve these very files for ever: model.revision = "{found.commit}"')


def preload(
    name: NameArgument = "",
    revision: RevisionOption = "",
    token_file: TokenFileOption = None,
    config: ConfigOption = None,
) -> None:
    """See that a model is whole on this machine, and fetch it if it is not: before a worker starts."""
    with _one_line_errors("preload"):
        model = _asked(name, revision, config)
        from workers.models.cache import find
        from workers.models.folder import faults, names_folder

        if names_folder(model.name):
            _refuse_faults(model.name, faults(Path(model.name)))
            typer.echo(f"{model.name} is a folder on this machine, and looks whole")
            return
        found = find(model.name, model.revision)
        if found is None or found.faults():
            found = _pull(model, PullOptions(token_file=token_file))
        _refuse_faults(f"{found.name} in {found.folder}", found.faults())
        typer.echo(f"{found.name} at commit {found.commit} is here, and looks whole")


def verify(name: NameArgument = "", revision: RevisionOption = "", config: ConfigOption = None) -> None:
    """Read every byte of a model in the cache and compare it with the hub's digests, without asking the hub."""
    with _one_line_errors("verify"):
        model = _asked(name, revision, config)
        from workers.models.cache import find
        from workers.models.folder import faults, names_folder
        from workers.models.hub import ModelError
        from workers.models.verify import damage

        if names_folder(model.name):
            _refuse_faults(model.name, faults(Path(model.name)))
            typer.echo(f"{model.name} is a folder: nobody noted its digests, but by names and sizes it is whole")
            return
        found = find(model.name, model.revision)
        if found is None:
            raise ModelError(f"{model.name} is not in the cache: fleet models pull {model.name}")
        damaged = damage(found, on_file=_told if sys.stderr.isatty() else lambda _path: None)
        for sentence in damaged:
            typer.echo(sentence)
        if damaged:
            raise ModelError(
                f"{found.name} is damaged: fleet models pull {found.name} --repair fetches these files anew"
            )
        typer.echo(f"{found.name} at commit {found.commit}: every byte is what the hub has")


def remove(
    name: Annotated[str, typer.Argument(help="On the model hub.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit; without it all of them.")] = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a model, or one revision of it, from this machine's cache; files that another revision has stay."""
    with _one_line_errors("remove"):
        from workers.models import cache

        strategy, gone = cache.deletion(name, revision)
        for model in gone:
            typer.echo(f"{model.name} at commit {model.commit}")
        size = f"{strategy.expected_freed_size / GIGABYTE:.3f} GB"
        if not yes:
            typer.confirm(f"remove, and free {size}?", abort=True)
        cache.remove(strategy, gone)
        typer.echo(f"removed, {size} are free")


def _pull(model: ModelSettings, options: PullOptions) -> "CachedModel":
    from workers.models.hub import read_token
    from workers.models.pull import Wanted, draw_no_progress, pull

    if not sys.stderr.isatty():
        draw_no_progress()  # a log is no place for a line that is drawn over and over
    wanted = Wanted(
        model.name, model.revision, tuple(options.include or ()), tuple(options.exclude or ()), is_repair=options.repair
    )
    return pull(wanted, read_token(options.token_file), typer.echo)


def _asked(name: str, revision: str, config: Path | None) -> ModelSettings:
    """Name and revision as given, or else as the worker's settings have them.

    Raises:
        SettingsError: no source names a model.
    """
    settings = load_settings(config_file=config, environ=os.environ, overrides={}).settings.model
    asked = name or settings.name
    if not asked:
        raise SettingsError("no model: name one, or set FLEET_MODEL, or model.name in fleet.toml")
    own = settings.revision if asked == settings.name else ""
    return ModelSettings(name=asked, revision=revision or own)


def _refuse_faults(what: str, faults: list[str]) -> None:
    from workers.models.hub import ModelError

    if faults:
        raise ModelError(f"{what} cannot be served: {'; '.join(faults)}")


def _told(path: str) -> None:
    typer.echo(f"reading {path}", err=True)


def _state(model: "CachedModel") -> str:
    return "incomplete" if model.faults() else "complete"


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


@contextmanager
def _one_line_errors(command: str) -> Iterator[None]:
    """What a person can mend becomes one line on standard error, and the exit code says whose it is."""
    from workers.models.hub import ModelError

    try:
        yield
    except SettingsError as error:
        typer.echo(f"fleet models {command}: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    except ModelError as error:
        typer.echo(f"fleet models {command}: {error}", err=True)
        raise typer.Exit(1) from error
