"""What a pass consists of: jobs from a seed, their arrival times, and how many may be out at once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

WORD_LIST: Final = (
    "the and it to is of what one work question answer dog lazy do some not can exactly at an two name light day"
)
WORDS: Final = tuple(WORD_LIST.split())
"""One or two tokens each for the tiny model's tokenizer, one for those of real models."""


@dataclass(frozen=True, slots=True)
class BenchJob:
    """One greedy job that generates exactly ``output_tokens``."""

    index: int
    """Its place in the pass."""
    prompt: str
    output_tokens: int
    priority: str = "normal"
    """A lane of the fleet; drivers without priorities ignore it."""
    at_seconds: float = 0.0
    """When it is handed in, counted from the moment when every job at 0 has been."""


@dataclass(frozen=True, slots=True)
class Load:
    """One pass."""

    jobs: tuple[BenchJob, ...]
    window: int | None = None
    """Most jobs handed in and not answered yet; None: no bound. 1 is one job at a time."""
    backlog_first: bool = False
    """Hand every job in before a worker may take the first; drivers with a queue only."""

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        """From its JSON form."""
        return cls(**fields | {"jobs": tuple(BenchJob(**job) for job in fields["jobs"])})


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from ``low`` to ``high``, all as likely."""

    low: int
    high: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """From ``50:300``, or ``50`` for one number.

        Raises:
            ValueError: it is neither.
        """
        low, _, high = text.partition(":")
        try:
            bounds = cls(int(low), int(high or low))
        except ValueError:
            raise ValueError(f"{text!r} is no range of whole numbers: write it as 50:300, or 50") from None
        if not 0 < bounds.low <= bounds.high:
            raise ValueError(f"{text!r} must begin above 0 and must not end before it begins")
        return bounds


@dataclass(frozen=True, slots=True)
class JobMix:
    """Random jobs: a seed and a pass number name them, so a pass can be repeated and no two share prompts."""

    count: int
    prompt_words: Range = field(default=Range(50, 300))
    output_tokens: Range = field(default=Range(32, 512))
    seed: int = 7

    def jobs(self, pass_number: int, count: int | None = None) -> tuple[BenchJob, ...]:
        """The jobs of a pass, ``count`` of them when given; all at 0 seconds."""
        draw = random.Random(f"{self.seed}-{pass_number}")  # noqa: S311 - repeatable jobs, no secret
        return tuple(
            BenchJob(
                index=index,
                prompt=" ".join(draw.choices(WORDS, k=draw.randint(self.prompt_words.low, self.prompt_words.high))),
                output_tokens=draw.randint(self.output_tokens.low, self.output_tokens.high),
            )
            for index in range(self.count if count is None else count)
        )


def poisson_arrivals(count: int, per_second: float, seed: str) -> list[float]:
    """Arrival times in seconds of ``count`` jobs that come independently of each other."""
    draw = random.Random(seed)  # noqa: S311 - repeatable arrivals, no secret
    at_seconds, arrivals = 0.0, []
    for _ in range(count):
        at_seconds += draw.expovariate(per_second)
        arrivals.append(at_seconds)
    return arrivals


def due(jobs: Sequence[BenchJob]) -> tuple[list[BenchJob], list[BenchJob]]:
    """The jobs that are handed in at once, and the later ones in order of arrival."""
    at_once = [job for job in jobs if job.at_seconds <= 0]
    return at_once, sorted((job for job in jobs if job.at_seconds > 0), key=lambda job: job.at_seconds)
