"""What each worker says of itself (``fleet:workers``), and for how long its word counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

import orjson

from producer.contract import Priority


class Phase(StrEnum):
    """Where a worker is in its life, from start to end; it never goes back."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """One worker process, by its own words of a few seconds ago; rates are over its last minute."""

    worker: str
    """Celery node name."""
    model: str
    phase: Phase
    is_ready: bool
    """It takes jobs, and its engine answers."""
    since: float
    """Seconds since the epoch by the worker's clock: when the phase began."""
    process_id: int
    engine: str
    """``vllm`` or ``simulated``."""
    engine_version: str
    gpus: tuple[str, ...] = ()
    """Indices or UUIDs as in ``CUDA_VISIBLE_DEVICES``; none on a CPU."""
    pages: str = ""
    """Address of its ``/metrics``, ``/health`` and ``/ready``."""
    consumer: str = ""
    """What its doorbell is known by."""
    lanes: str = "all"
    """What it takes jobs from: ``all`` lanes, the ``interactive`` one, or all ``others``."""
    slots: int = 0
    """Jobs that it holds at most; 0 while it loads, as all that follows."""
    max_num_seqs: int = 0
    """Sequences that its engine runs together."""
    max_model_len: int = 0
    """Longest prompt plus output of one sequence, in tokens."""
    kv_cache_tokens: int | None = None
    """Tokens whose KV cache fits, over all sequences; None where the engine does not tell."""
    running_jobs: int = 0
    finished_jobs: int = 0
    """Since it started, whatever their outcome."""
    jobs_per_second: float = 0.0
    generation_tokens_per_second: float = 0.0

    def serves(self, priority: Priority) -> bool:
        """Whether it takes jobs of this lane."""
        return self.lanes == "all" or (self.lanes == "interactive") == (priority is Priority.INTERACTIVE)


_NAMES: Final = frozenset(field.name for field in fields(WorkerPresence))


def encoded_presence(presence: WorkerPresence) -> bytes:
    """The hash's value."""
    return orjson.dumps(presence)


def present(
    now: float, ends: Sequence[tuple[bytes, float]], said: Mapping[bytes, bytes], *, model: str | None
) -> list[WorkerPresence]:
    """Of the workers whose word still counts at this moment, by name; those of one model when it is given."""
    found = [_read(orjson.loads(said[worker])) for worker, end in sorted(ends) if end > now and worker in said]
    return [one for one in found if model is None or one.model == model]


def _read(one: Mapping[str, Any]) -> WorkerPresence:
    # A worker of a later version may say more than this one understands.
    known: dict[str, Any] = {name: value for name, value in one.items() if name in _NAMES}
    return WorkerPresence(**known | {"phase": Phase(one["phase"]), "gpus": tuple(one["gpus"])})
