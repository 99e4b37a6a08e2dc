"""A driver as the command line names it: ``fleet``, or ``fleet:worker.engines_per_gpu=2`` with settings of its own."""

import json
from dataclasses import dataclass
from typing import Any

from workers.bench.drivers import DriverKind, kind_of
from workers.bench.target import BenchError, EngineTarget, with_settings


@dataclass(frozen=True, slots=True)
class Variant:
    """What is started under a label."""

    name: str
    kind: DriverKind
    target: EngineTarget

    @property
    def window(self) -> int | None:
        """Jobs out in a throughput pass; None: no bound."""
        return self.kind.jobs_out(self.target)


def variant_of(label: str, target: EngineTarget) -> Variant:
    """``NAME``, or ``NAME:setting=value`` with more settings after semicolons; they hold for this driver alone.

    Raises:
        BenchError: there is no such driver, it cannot run the target, or a setting has no value.
    """
    name, _, given = label.partition(":")
    settings = dict(_parsed(label, pair) for pair in given.split(";") if pair)
    own = with_settings(target, settings)
    return Variant(name, kind_of(name, own), own)


def _parsed(label: str, pair: str) -> tuple[str, Any]:
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise BenchError(f"driver {label}: write its settings as {label.partition(':')[0]}:name=value;name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def refuse_without_arrivals(label: str, target: EngineTarget) -> None:
    """Refuse a driver that can only be given everything at once.

    Raises:
        BenchError: it is one, or :func:`variant_of` refuses it.
    """
    if not variant_of(label, target).kind.arrivals:
        raise BenchError(f"driver {label} takes whole passes only: use it in throughput")
