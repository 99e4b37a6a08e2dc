"""``fleet bench``: measure this fleet beside what one could use instead of it."""

import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from config.errors import SettingsError
from producer.cli_options import takes
from workers.bench import throughput as throughput_bench
from workers.bench.drivers import KINDS
from workers.bench.load import JobMix, Range
from workers.bench.report import Report
from workers.bench.session import Session
from workers.bench.target import BenchError, Wanted, target_of
from workers.commands.worker import SetOption, parse_settings
from workers.exit_codes import EXIT_CONFIGURATION

NOT_MEASURED: Final = ("json", "plot", "settings")
"""Options that say nothing about what was measured, or are in the report's target."""

JobsOption = Annotated[int, typer.Option(min=1, help="Jobs of one pass.")]


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every bench takes."""

    engine: Annotated[str, typer.Option(help="vllm, or simulated: an engine without a model.")] = "vllm"
    model: Annotated[str | None, typer.Option(help="Folder, or a name that the model hub knows.")] = None
    shape: Annotated[str | None, typer.Option(help="tiny (the default), 0.6b or 8b: random weights.")] = None
    settings: SetOption = None
    repeats: Annotated[int, typer.Option(min=1, help="Counted passes, each with prompts of its own.")] = 3
    seed: Annotated[int, typer.Option(help="Names the jobs: the same seed, the same jobs.")] = 7
    prompt_words: Annotated[str, typer.Option(help="Length of prompts, from:to.")] = "50:300"
    output_tokens: Annotated[str, typer.Option(help="Tokens to generate, from:to.")] = "32:512"
    warm_up_jobs: Annotated[int, typer.Option(min=0, help="Jobs before the first counted pass.")] = 32
    json: Annotated[Path | None, typer.Option(help="Write everything that was measured into this file.")] = None


@dataclass(frozen=True, slots=True)
class ThroughputOptions(CommonOptions):
    """What ``fleet bench throughput`` takes."""

    drivers: Annotated[str, typer.Option(help=f"With commas: {', '.join(KINDS)}.")] = "asyncllm,fleet"
    jobs: JobsOption = 256


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Measure this fleet beside what one could use instead of it.")
    group.command("throughput")(throughput)
    app.add_typer(group, name="bench")


@takes(ThroughputOptions)
def throughput(options: ThroughputOptions) -> None:
    """Tokens per second: the same jobs through each driver."""
    _measured(options, options.jobs, lambda session: throughput_bench.run(session, options.drivers.split(",")))


def _measured(options: CommonOptions, jobs: int, bench: Callable[[Session], Report]) -> None:
    """Run a bench and give its report to the user; nothing that it started is left, also after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="fleet-bench-", ignore_cleanup_errors=True) as folder:
            session = _session(options, jobs, Path(folder), console)
            report = bench(session)
    except (BenchError, SettingsError, ValueError) as error:
        typer.echo(f"fleet bench: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    report.parameters |= {
        name: value for name, value in asdict(options).items() if name not in NOT_MEASURED and value is not None
    }
    report.show(console)
    if options.json is not None:
        report.save(options.json)
    raise typer.Exit(0 if all(row.repeats for row in report.rows) else 1)


def _session(options: CommonOptions, jobs: int, folder: Path, console: Console) -> Session:
    settings = parse_settings(options.settings or ())
    target = target_of(Wanted(options.engine, options.model, options.shape, settings), folder / "models")
    return Session(
        target=target,
        mix=JobMix(jobs, Range.parsed(options.prompt_words), Range.parsed(options.output_tokens), options.seed),
        repeats=options.repeats,
        warm_up_jobs=options.warm_up_jobs,
        folder=folder,
        say=lambda text: console.print(text, style="dim", highlight=False, markup=False),
    )
