"""A calibration: start engines beside each other as long as each adds enough, and say how many are worth it."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from workers.calibration.choice import (
    CalibrationFailed,
    Choice,
    Measured,
    engines_worth_it,
    is_worth_another,
    reason_of,
)
from workers.calibration.contender import DoesNotAnswer, DoesNotStart, Ready, WrongSettings
from workers.calibration.load import Phase
from workers.cpu_cores import Core
from workers.placement import Slot, on_own_cores

log = logging.getLogger(__name__)

MOST_ON_A_GPU: Final = 4
MOST_ON_A_CPU: Final = 2
SHARES: Final = (MOST_ON_A_GPU, 2)
"""Into how many parts a GPU's memory is divided while engines are compared: the second where a part of the first is too
small for the model."""
TOKENS_PER_SEQUENCE: Final = 256
"""KV cache that each of an engine's sequences must find in its share; with less, engines would wait for memory."""
LEAD_SECONDS: Final = 0.5
"""Between the order and the common start, so that every process has read it."""


class Engine(Protocol):
    """What a contender does (:class:`workers.calibration.contender.Contender`)."""

    def ready(self) -> Ready:
        """Wait for its start."""

    def begin(self, phase: Phase) -> None:
        """Order a phase."""

    def tokens_per_second(self) -> float:
        """Wait for what it made."""

    def stop(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Calibration:
    """Where and how engines are compared."""

    gpus: Sequence[str]
    """The one GPU; none: the CPU."""
    cores: Sequence[Core]
    """For engines on the CPU."""
    start: Callable[[Slot], Engine]
    ramp_seconds: float = 2.0
    measured_seconds: float = 5.0

    def choice(self) -> Choice:
        """Measure.

        Raises:
            CalibrationFailed: no engine started, or none answered.
        """
        try:
            return self._on_gpu() if self.gpus else self._on_cpu()
        except (DoesNotStart, DoesNotAnswer) as error:
            raise CalibrationFailed(str(error)) from error

    def _on_gpu(self) -> Choice:
        for parts in SHARES:
            try:
                return Comparison(self, parts).beside_each_other()
            except WrongSettings:
                raise
            except DoesNotStart as error:
                log.info("1/%d of the memory: %s", parts, error, extra={"action": "calibration"})
        with ExitStack() as stack:
            self.started(stack, Slot(0, tuple(self.gpus)))
        return _chosen(1, (), "two engines do not fit into the memory")

    def _on_cpu(self) -> Choice:
        return Comparison(self, min(MOST_ON_A_CPU, len(self.cores))).one_group_after_another()

    def started(self, stack: ExitStack, slot: Slot) -> tuple[Engine, Ready]:
        """A running engine, until the stack ends.

        Raises:
            DoesNotStart: it does not.
        """
        log.info("starting engine %d on %s …", slot.index + 1, _place(slot), extra={"action": "calibration"})
        began = time.monotonic()
        engine = self.start(slot)
        stack.callback(engine.stop)
        ready = engine.ready()
        seconds = time.monotonic() - began
        log.info("engine %d is up after %.0f s", slot.index + 1, seconds, extra={"action": "calibration"})
        return engine, ready

    def load(self, engines: Sequence[Engine]) -> float:
        """Output tokens per second of all of them together.

        Raises:
            DoesNotAnswer: one failed.
        """
        phase = Phase(time.monotonic() + LEAD_SECONDS, self.ramp_seconds, self.measured_seconds)
        for engine in engines:
            engine.begin(phase)
        total = sum(engine.tokens_per_second() for engine in engines)
        log.info("engines: %d, output tokens/s: %s", len(engines), f"{total:,.0f}", extra={"action": "calibration"})
        if total <= 0:
            raise DoesNotAnswer(f"{len(engines)} engines generated nothing in {self.measured_seconds:g} s")
        return total


@dataclass
class Comparison:
    """One engine, two, and so on, up to ``most``."""

    calibration: Calibration
    most: int
    _totals: list[float] = field(default_factory=list, init=False)

    def beside_each_other(self) -> Choice:
        """On a GPU: each new engine joins those that run, in the share that the largest number would have.

        Raises:
            DoesNotStart: already the first has no room in such a share.
            DoesNotAnswer: already the first failed.
        """
        with ExitStack() as stack:
            engines: list[Engine] = []
            while is_worth_another(self._totals, self.most):
                slot = Slot(len(engines), tuple(self.calibration.gpus), self.most)
                try:
                    engine, ready = self.calibration.started(stack, slot)
                    _refuse_without_room(ready)
                    engines.append(engine)
                    self._totals.append(self.calibration.load(engines))
                except (DoesNotStart, DoesNotAnswer) as error:
                    return self._with_what_there_is(error)
        return _chosen(engines_worth_it(self._totals), self._totals, reason_of(self._totals, self.most))

    def one_group_after_another(self) -> Choice:
        """On a CPU: engines bind to their cores when they start, so each number starts anew.

        Raises:
            DoesNotStart: already one does not.
            DoesNotAnswer: already one failed.
        """
        while is_worth_another(self._totals, self.most):
            count = len(self._totals) + 1
            slots = on_own_cores([Slot(index, (), count) for index in range(count)], self.calibration.cores)
            try:
                with ExitStack() as stack:
                    engines = [self.calibration.started(stack, slot)[0] for slot in slots]
                    self._totals.append(self.calibration.load(engines))
            except (DoesNotStart, DoesNotAnswer) as error:
                return self._with_what_there_is(error)
        return _chosen(engines_worth_it(self._totals), self._totals, reason_of(self._totals, self.most))

    def _with_what_there_is(self, error: Exception) -> Choice:
        count = len(self._totals)
        if not count:
            raise error
        return _chosen(count, self._totals, f"{count + 1} engines do not work: {error}")


def _refuse_without_room(ready: Ready) -> None:
    wanted_tokens = ready.max_num_seqs * min(TOKENS_PER_SEQUENCE, ready.max_model_len)
    if ready.kv_cache_tokens is not None and ready.kv_cache_tokens < wanted_tokens:
        raise DoesNotStart(
            f"its KV cache of {ready.kv_cache_tokens:,} tokens is too small for {ready.max_num_seqs} sequences "
            f"({wanted_tokens:,} tokens)"
        )


def _place(slot: Slot) -> str:
    share = f", with 1/{slot.engines_on_device} of it" if slot.engines_on_device > 1 else ""
    return slot.place_name + share


def _chosen(count: int, totals: Sequence[float], reason: str) -> Choice:
    return Choice(
        engines_per_gpu=count,
        reason=reason,
        measured=tuple(Measured(engines=at, tokens_per_second=total) for at, total in enumerate(totals, start=1)),
        chosen_at=datetime.now(UTC),
    )
