"""What a calibration chose and why, and the rule that it follows."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

LEAST_GAIN: Final = 0.15
"""Another engine must add this share to the total: it takes memory from the KV caches and cores from the machine, and
a measurement of seconds is off by a few percent."""


class CalibrationFailed(Exception):
    """Nothing could be measured; the message is the reason in one line."""


class Record(BaseModel):
    """Immutable, and strict about what is read from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(Record):
    """What so many engines made together."""

    engines: int = Field(ge=1)
    tokens_per_second: float = Field(gt=0)


class Choice(Record):
    """How many engines share a GPU from now on."""

    engines_per_gpu: int = Field(ge=1)
    reason: str
    measured: tuple[Measured, ...]
    """Empty where only one engine fits, so that there was nothing to compare."""
    chosen_at: datetime

    @property
    def figures(self) -> str:
        """What was measured, for a log line."""
        told = [f"{one.engines}: {one.tokens_per_second:,.0f}" for one in self.measured]
        return f"output tokens/s by engines {', '.join(told)}" if told else "nothing measured"


def engines_worth_it(totals: Sequence[float]) -> int:
    """The number of engines to run, from the totals of one engine, two, and so on: as long as each adds enough."""
    for count, (before, after) in enumerate(itertools.pairwise(totals), start=1):
        if after < before * (1 + LEAST_GAIN):
            return count
    return len(totals)


def is_worth_another(totals: Sequence[float], most: int) -> bool:
    """Whether one engine more is to be measured."""
    return len(totals) < most and engines_worth_it(totals) == len(totals)


def reason_of(totals: Sequence[float], most: int) -> str:
    """Why no more engines were chosen, where all of ``totals`` could be measured."""
    count = engines_worth_it(totals)
    if count == len(totals):
        return f"{most} is the most that is tried here"
    gain = totals[count] / totals[count - 1] - 1
    return f"{count + 1} engines make {gain:+.0%} of the total of {count}, and {LEAST_GAIN:.0%} is asked for"
