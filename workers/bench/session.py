"""What all benches share: their parameters, and one driver started once for its warm-up and all its repeats."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from workers.bench.driver_process import DriverProcess
from workers.bench.drivers.variant import variant_of
from workers.bench.load import JobMix, Load
from workers.bench.records import PassRecord
from workers.bench.report import Row
from workers.bench.target import EngineTarget


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a bench."""

    target: EngineTarget
    mix: JobMix
    repeats: int
    warm_up_jobs: int | None
    """None: as many as fill the engine. Fewer would leave its larger batches cold."""
    folder: Path
    """For drivers' data and logs."""
    say: Callable[[str], None]
    """Tells the user what happens now."""

    @property
    def passes(self) -> range:
        """The numbers of the counted passes; pass 0 is the warm-up."""
        return range(1, self.repeats + 1)

    @contextmanager
    def driver(self, label: str) -> Iterator[DriverProcess]:
        """A driver that serves and is warm.

        Raises:
            BenchError: there is no such driver, or it failed.
        """
        with self.process(label) as driver:
            driver.wait_until_ready()
            self.warm_up(label, driver)
            yield driver

    def process(self, label: str) -> DriverProcess:
        """A driver's process, not started.

        Raises:
            BenchError: there is no such driver.
        """
        variant = variant_of(label, self.target)
        self.say(f"{label}: starting")
        return DriverProcess(variant.name, variant.target, Path(mkdtemp(prefix=f"{variant.name}-", dir=self.folder)))

    def warm_up(self, label: str, driver: DriverProcess) -> None:
        """Run the pass that does not count."""
        if self.warm_up_jobs != 0:
            self.say(f"{label}: warm-up")
            jobs = self.mix.jobs(0, self.warm_up_jobs or self.target.slots_and_headroom)
            driver.run(Load(jobs, variant_of(label, self.target).window))


def columns_of(done: PassRecord) -> dict[str, Sequence[Any]]:
    """The pass's raw values by column, times in seconds from its first submit."""
    began_at = min(record.submitted_at for record in done.records)
    return {
        "submitted_seconds": [round(r.submitted_at - began_at, 6) for r in done.records],
        "first_token_seconds": [
            None if r.first_token_at is None else round(r.first_token_at - began_at, 6) for r in done.records
        ],
        "ended_seconds": [round(r.ended_at - began_at, 6) for r in done.records],
        "prompt_tokens": [r.prompt_tokens for r in done.records],
        "output_tokens": [r.output_tokens for r in done.records],
    }


def note_failures(row: Row, done: PassRecord) -> None:
    """Say in the row how many jobs were not answered, and why the first was not."""
    failures = [record.failure for record in done.records if record.failure]
    if failures:
        row.notes.append(f"{len(failures)} of {len(done.records)} jobs failed: {failures[0]}")
