"""How full an engine's slots were, from its own record of them (the simulated engine's option ``slot_log``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SlotSpan:
    """One job's time in a slot, in seconds since the epoch."""

    given_at: float
    left_at: float


@dataclass(frozen=True, slots=True)
class SteadyWindow:
    """From when as many jobs have ended as there are slots, until the last waiting job got one."""

    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended_at - self.began_at


def read_spans(log: Path, offset_bytes: int = 0) -> list[SlotSpan]:
    """The spans in a slot log from an offset on, in the order of the ends."""
    with log.open("rb") as file:
        file.seek(offset_bytes)
        pairs = [line.split() for line in file.read().decode().splitlines()]
    return [SlotSpan(float(given_at), float(left_at)) for given_at, left_at in pairs]


def steady_window(spans: Sequence[SlotSpan], slots: int) -> SteadyWindow:
    """When jobs were waiting and the first, who all came at once, had made way for others.

    Every job must have been queued before the first was taken.

    Raises:
        ValueError: there were too few jobs.
    """
    if len(spans) > slots:
        window = SteadyWindow(sorted(span.left_at for span in spans)[slots - 1], max(span.given_at for span in spans))
        if window.seconds > 0:
            return window
    raise ValueError(f"{len(spans)} jobs are too few to keep {slots} slots busy: let a pass last longer")


def occupancy(spans: Sequence[SlotSpan], slots: int, window: SteadyWindow) -> float:
    """Slot time in use over slot time that there was, 0 to 1."""
    in_use_seconds = sum(
        max(0.0, min(span.left_at, window.ended_at) - max(span.given_at, window.began_at)) for span in spans
    )
    return in_use_seconds / (slots * window.seconds)


def refill_gaps_seconds(spans: Sequence[SlotSpan], slots: int, window: SteadyWindow) -> list[float]:
    """How long each slot that became free in the window stayed empty while jobs waited.

    The first slot to become free is refilled by the first job that comes after the first ``slots`` ones, and so on.
    """
    given = sorted(span.given_at for span in spans)[slots:]
    left = sorted(span.left_at for span in spans)
    return [given_at - left_at for given_at, left_at in zip(given, left, strict=False) if left_at >= window.began_at]
