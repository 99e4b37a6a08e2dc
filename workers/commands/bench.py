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
from workers.bench import enqueue as enqueue_bench
from workers.bench import latency as latency_bench
from workers.bench import mixed as mixed_bench
from workers.bench import overhead as overhead_bench
from workers.bench import throughput as throughput_bench
from workers.bench.drivers import KINDS
from workers.bench.load import JobMix, Range
from workers.bench.plot import check_plot, draw
from workers.bench.report import Report
from workers.bench.session import Session
from workers.bench.target import BenchError, Wanted, target_of
from workers.commands.fleet_options import SetOption, parse_settings
from workers.exit_codes import EXIT_CONFIGURATION

NOT_MEASURED: Final = ("json", "plot", "settings")
"""Options that say nothing about what was measured, or are in the report's target."""

JobsOption = Annotated[int, typer.Option(min=1, help="Jobs of one pass.")]
DriversOption = Annotated[
    str, typer.Option(help=f"With commas: {', '.join(KINDS)}; settings of one alone as fleet:name=value;name=value.")
]
RateOption = Annotated[float, typer.Option(min=0, help="Jobs a second that come whether or not others are answered.")]


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
    warm_up_jobs: Annotated[
        int | None, typer.Option(min=0, help="Jobs before the first counted pass; as many as fill the engine.")
    ] = None
    json: Annotated[Path | None, typer.Option(help="Write everything that was measured into this file.")] = None
    plot: Annotated[Path | None, typer.Option(help="Draw it into this file (.png, .svg, .pdf).")] = None


@dataclass(frozen=True, slots=True)
class ThroughputOptions(CommonOptions):
    """What ``fleet bench throughput`` takes."""

    drivers: DriversOption = "asyncllm,fleet"
    jobs: JobsOption = 256
    together: Annotated[
        bool, typer.Option("--together", help="Start all drivers first, let them take turns; all engines must fit.")
    ] = False


@dataclass(frozen=True, slots=True)
class LatencyOptions(CommonOptions):
    """What ``fleet bench latency`` takes."""

    drivers: DriversOption = "asyncllm,fleet"
    jobs: JobsOption = 200
    rate: RateOption = 20.0


@dataclass(frozen=True, slots=True)
class OverheadOptions(CommonOptions):
    """What ``fleet bench overhead`` takes."""

    engine: Annotated[str, typer.Option(help="simulated is the only one here.")] = "simulated"
    drivers: DriversOption = "fleet"
    jobs: Annotated[int, typer.Option(min=1, help="No-op jobs of one pass.")] = 5_000
    rates: Annotated[str, typer.Option(help="Jobs a second that fill 256 slots, with commas.")] = "100,200,640"
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a pass at such a rate.")] = 10.0


@dataclass(frozen=True, slots=True)
class EnqueueOptions(CommonOptions):
    """What ``fleet bench enqueue`` takes."""

    engine: Annotated[str, typer.Option(help="simulated is the only one here.")] = "simulated"
    prompt_words: Annotated[str, typer.Option(help="Length of prompts, from:to.")] = "20:100"
    jobs: Annotated[int, typer.Option(min=1, help="Jobs that are queued in bulk, and as raw messages.")] = 20_000
    single_submits: Annotated[int, typer.Option(min=1, help="Calls of submit, at most --jobs.")] = 1_000
    callers: Annotated[int, typer.Option(min=1, help="Jobs whose results are waited for.")] = 10_000


@dataclass(frozen=True, slots=True)
class MixedOptions(CommonOptions):
    """What ``fleet bench mixed`` takes."""

    drivers: DriversOption = "asyncllm,fleet"
    batch_jobs: Annotated[int, typer.Option(min=1, help="Jobs that flood the queue.")] = 3_000
    jobs: Annotated[int, typer.Option(min=1, help="Interactive jobs of one pass.")] = 200
    rate: Annotated[float, typer.Option(min=0.001, help="Interactive jobs a second.")] = 20.0


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Measure this fleet beside what one could use instead of it.")
    for command in (throughput, latency, overhead, enqueue, mixed):
        group.command(command.__name__)(command)
    app.add_typer(group, name="bench")


@takes(ThroughputOptions)
def throughput(options: ThroughputOptions) -> None:
    """Tokens per second: the same jobs through each driver."""
    plan = throughput_bench.Plan(_list(options.drivers), options.together)
    _measured(options, options.jobs, lambda session: throughput_bench.run(session, plan))


@takes(LatencyOptions)
def latency(options: LatencyOptions) -> None:
    """Time to first token and to the result, on an idle fleet beside the engine called directly."""
    plan = latency_bench.Plan(_list(options.drivers), options.rate)
    _measured(options, options.jobs, lambda session: latency_bench.run(session, plan))


@takes(OverheadOptions)
def overhead(options: OverheadOptions) -> None:
    """CPU per job of worker and server, jobs per second, and how full the engine's slots are."""
    plan = overhead_bench.Plan(_list(options.drivers), overhead_bench.rates_of(options.rates), options.seconds)
    _measured(options, options.jobs, lambda session: overhead_bench.run(session, plan))


@takes(EnqueueOptions)
def enqueue(options: EnqueueOptions) -> None:
    """What it costs to queue jobs and to wait for their results."""
    plan = enqueue_bench.Plan(options.jobs, options.single_submits, options.callers)
    _measured(options, options.jobs, lambda session: enqueue_bench.run(session, plan))


@takes(MixedOptions)
def mixed(options: MixedOptions) -> None:
    """Interactive jobs' time to first token while batch jobs flood the queue, over the same without them."""
    plan = mixed_bench.Plan(_list(options.drivers), options.batch_jobs, options.rate)
    _measured(options, options.jobs, lambda session: mixed_bench.run(session, plan))


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _measured(options: CommonOptions, jobs: int, bench: Callable[[Session], Report]) -> None:
    """Run a bench and give its report to the user; nothing that it started is left, also after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    try:
        if options.plot is not None:
            check_plot(options.plot)
        with tempfile.TemporaryDirectory(prefix="fleet-bench-", ignore_cleanup_errors=True) as folder:
            report = bench(_session(options, jobs, Path(folder), console))
    except (BenchError, SettingsError, ValueError) as error:
        typer.echo(f"fleet bench: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    asked = {name: value for name, value in asdict(options).items() if name not in NOT_MEASURED}
    report.parameters = asked | report.parameters
    report.show(console)
    if options.json is not None:
        report.save(options.json)
    if options.plot is not None:
        draw(report, options.plot)
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
