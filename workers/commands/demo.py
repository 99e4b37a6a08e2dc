"""``fleet demo``: a real fleet on this machine works through the repository's own documents, then stops."""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from config.errors import SettingsError
from producer import ChatMessage, FleetError, GenerationRequest, Preset, Producer, SamplingOptions
from producer.cli_options import takes
from producer.jobs import JobOutcome
from workers.commands.fleet_options import FleetOptions
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE
from workers.local.documents import Section, markdown_files, sections_of
from workers.local.model import TINY_MODEL, model_or_tiny
from workers.local.stack import LocalStack, StackFailed

MAX_SECTION_CHARACTERS: Final = 1_500
SUMMARY_TOKENS: Final = 48
SHOWN_CHARACTERS: Final = 88


@dataclass(frozen=True, slots=True)
class DemoOptions(FleetOptions):
    """What ``fleet demo`` takes."""

    documents: Annotated[list[Path] | None, typer.Argument(help="Markdown documents; without any, those here.")] = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="demo")(demo)


@takes(DemoOptions)
def demo(options: DemoOptions) -> None:
    """Start a fleet here, summarise every section of the documents and answer one chat turn, then stop it."""
    # Everything is stopped on the way out, whoever asks for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(".fleet")
    try:
        documents = options.documents or markdown_files(Path())
        sections = list(sections_of(documents, MAX_SECTION_CHARACTERS))
        with LocalStack(folder, model_or_tiny(options.overrides(), folder, None)) as stack:
            failures = _run(stack, sections)
    except (SettingsError, OSError) as error:
        typer.echo(f"fleet demo: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    except (StackFailed, FleetError) as error:
        typer.echo(f"fleet demo: {error}", err=True)
        raise typer.Exit(EXIT_ENGINE) from error
    raise typer.Exit(1 if failures else 0)


def _run(stack: LocalStack, sections: Sequence[Section]) -> int:
    """Run the job set; how many jobs failed."""
    console = Console()
    served = stack.settings.model.served_as
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        loading = progress.add_task(f"loading {served} into vLLM", total=None)
        stack.wait_until_ready()
        progress.remove_task(loading)
        console.print(f"Flower   {stack.flower_url}\nmetrics  {stack.metrics_url}/metrics")
        if served == TINY_MODEL:
            console.print("[dim]The model is tiny and random: what it writes is noise, the way it went is real.[/]")
        requests = [_summary(served, section) for section in sections] + [_chat(served)]
        titles = [f"{section.document}: {section.title}" for section in sections] + ["chat"]
        bar = progress.add_task("jobs", total=len(requests))
        started_at, outcomes = time.monotonic(), []
        with Producer(stack.settings.redis.url) as producer:
            for outcome in producer.map(requests):
                outcomes.append(outcome)
                _show(console, titles[outcome.index], outcome)
                progress.advance(bar)
        elapsed_seconds = time.monotonic() - started_at
    return _sum_up(console, outcomes, elapsed_seconds)


def _show(console: Console, title: str, outcome: JobOutcome) -> None:
    if outcome.result is None:
        console.print(f"[red]✗ {escape(title)}[/]: {escape(str(outcome.failure))}")
        return
    # What a random model writes holds control characters too, which no terminal should get.
    printable = "".join(character if character.isprintable() else " " for character in outcome.result.text)
    text = " ".join(printable.split())[:SHOWN_CHARACTERS]
    console.print(f"[green]✓[/] [bold]{escape(title)}[/] [dim]{escape(text)}[/]", highlight=False)


def _sum_up(console: Console, outcomes: Sequence[JobOutcome], elapsed_seconds: float) -> int:
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    prompt_tokens = sum(result.usage.prompt_tokens for result in results)
    completion_tokens = sum(result.usage.completion_tokens for result in results)
    console.print(
        f"{len(results)} of {len(outcomes)} jobs answered in {elapsed_seconds:.2f} s: "
        f"{prompt_tokens} prompt tokens, {completion_tokens} generated, "
        f"[bold]{completion_tokens / elapsed_seconds:,.0f} tokens/s[/]"
    )
    return len(outcomes) - len(results)


def _summary(model: str, section: Section) -> GenerationRequest:
    return GenerationRequest(
        model=model,
        prompt=f"Summarise this section of {section.document} in one sentence.\n\n# {section.title}\n\n{section.text}",
        sampling=SamplingOptions(preset=Preset.BALANCED, max_tokens=SUMMARY_TOKENS, seed=1),
        metadata={"document": section.document[:64]},
    )


def _chat(model: str) -> GenerationRequest:
    return GenerationRequest(
        model=model,
        messages=(
            ChatMessage(role="system", content="You answer in one sentence."),
            ChatMessage(role="user", content="Why put a queue in front of a language model?"),
        ),
        sampling=SamplingOptions(preset=Preset.CHAT, max_tokens=SUMMARY_TOKENS, seed=1),
    )
