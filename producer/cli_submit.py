"""``fleet submit``: one job from options, or one for each line of a file."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Final

import orjson
import typer

from producer.batch import BatchSubmitFailed
from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl, takes
from producer.cli_producer import open_producer
from producer.cli_stream import print_stream
from producer.client import Producer
from producer.contract import FailureCode, Preset, Priority
from producer.errors import InvalidRequest, SubmitFailed
from producer.jobs import SubmitOutcome

PART_LINES: Final = 10_000
"""Lines whose outcomes are printed before more are read: the file may be larger than the memory."""


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What ``fleet submit`` takes."""

    model: Annotated[str | None, typer.Option(help="Served name of the model.")] = None
    prompt: Annotated[str | None, typer.Option(help="The prompt; without it, standard input.")] = None
    file: Annotated[
        Path | None,
        typer.Option(allow_dash=True, help="Requests as JSON, one per line; '-' is standard input."),
    ] = None
    preset: Annotated[Preset | None, typer.Option(help="Sampling options to start from.")] = None
    max_tokens: Annotated[int | None, typer.Option(help="Most output tokens.")] = None
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None
    priority: Annotated[Priority | None, typer.Option(help="The lane to wait in; normal by default.")] = None
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print its text, not the id.")] = False
    stream: Annotated[bool, typer.Option("--stream", help="Print the text while it is generated, not the id.")] = False
    redis_url: RedisUrl = DEFAULT_REDIS_URL

    def fields(self) -> dict[str, Any]:
        """The request's fields that were given."""
        sampling = {"preset": self.preset, "max_tokens": self.max_tokens, "temperature": self.temperature}
        options = {name: value for name, value in sampling.items() if value is not None}
        given = {"model": self.model, "priority": self.priority, "sampling": options or None}
        return {name: value for name, value in given.items() if value is not None}


@takes(SubmitOptions)
def submit(options: SubmitOptions) -> None:
    """Queue a job and print its id; or with --file one job per line, and print one line of JSON for each.

    What a line of the file leaves out comes from the other options. Exit code 1 when a line was refused.
    """
    if options.file is not None:
        if options.prompt is not None or options.wait or options.stream:
            raise typer.BadParameter("--file goes with none of --prompt, --wait and --stream")
        _submit_lines(options, options.file)
        return
    if options.model is None:
        raise typer.BadParameter("give --model, or --file", param_hint="--model")
    prompt = sys.stdin.read().removesuffix("\n") if options.prompt is None else options.prompt
    with open_producer(options.redis_url) as producer:
        submission = producer.submit(**options.fields(), prompt=prompt, stream=options.stream)
        if options.stream:
            print_stream(producer.stream(submission))
            return
        typer.echo(producer.result(submission).text if options.wait else submission.job_id)


class RequestLines:
    """Requests by the lines of a file, which remembers the lines until they are reported."""

    def __init__(self, lines: Iterable[bytes], fields: dict[str, Any]) -> None:
        self._lines = enumerate(lines, start=1)
        self._fields = fields
        self._read: list[tuple[int, str | None]] = []
        self.ended = False
        self.reported = 0
        self.refused = 0

    def part(self) -> Iterator[Any]:
        """The requests of the next lines; what a line leaves out comes from the command's options."""
        self.ended = True
        for number, line in islice(self._lines, PART_LINES):
            self.ended = False
            if not line.strip():
                continue
            try:
                given = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                self._read.append((number, f"not JSON: {error}"))
                continue
            self._read.append((number, None))
            yield self._merged(given) if isinstance(given, dict) else given

    def _merged(self, given: dict[str, Any]) -> dict[str, Any]:
        both = self._fields | given
        if isinstance(given.get("sampling"), dict):
            both["sampling"] = self._fields.get("sampling", {}) | given["sampling"]
        return both

    def report(self, outcomes: Iterable[SubmitOutcome]) -> list[int]:
        """Print what became of the lines that were read; the numbers of those for which it is not known."""
        known = iter(outcomes)
        for place, (number, problem) in enumerate(self._read):
            outcome = next(known, None) if problem is None else None
            if outcome is None and problem is None:
                return [unknown for unknown, _ in self._read[place:]]
            self._print(number, outcome, problem)
        self._read.clear()
        return []

    def _print(self, number: int, outcome: SubmitOutcome | None, problem: str | None) -> None:
        facts: dict[str, Any] = {"line": number}
        if outcome is not None and (submission := outcome.submission) is not None:
            facts |= {"job_id": submission.job_id, "enqueued_at": submission.enqueued_at}
            facts |= {"duplicate": submission.duplicate}
        else:
            error = outcome.error if outcome is not None else None
            code = FailureCode.INVALID_REQUEST if error is None else error.code
            facts |= {"error": {"code": code.value, "message": problem or str(error)}}
            self.refused += 1
        self.reported += 1
        typer.echo(orjson.dumps(facts).decode())


def _submit_lines(options: SubmitOptions, file: Path) -> None:
    with open_producer(options.redis_url) as producer, _opened(file) as content:
        lines = RequestLines(content, options.fields())
        while not lines.ended:
            _submit_part(producer, lines)
    if lines.refused:
        typer.echo(f"fleet: {lines.refused:,} of {lines.reported:,} requests were refused", err=True)
        raise typer.Exit(1)


def _submit_part(producer: Producer, lines: RequestLines) -> None:
    try:
        lines.report(producer.submit_many(lines.part()))
    except BatchSubmitFailed as failed:
        unknown = lines.report(failed.outcomes)
        raise SubmitFailed(
            f"{failed.trouble}. Lines {unknown[0]} to {unknown[-1]} are queued or not, each whole or not at all; later "
            "ones are not. A file whose lines have an idempotency_key can be submitted again"
        ) from failed


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        content = file.open("rb")
    except OSError as error:
        raise InvalidRequest(f"--file: {error}") from error
    with content:
        yield content
