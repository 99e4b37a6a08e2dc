"""How one model's queue stands: counts, what its work amounts to, who serves it, and why it waits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.contract import Priority
from producer.drain_rate import DrainRate
from producer.keys import PRIORITY_STEPS
from producer.presence import WorkerPresence
from producer.queue_counts import LaneCounts, QueueCounts
from producer.queue_place import WaitReason
from workers.transport.drain_policy import BYTES_PER_TOKEN, UNKNOWN_OUTPUT_TOKENS


@dataclass(frozen=True, slots=True)
class LaneSample:
    """What a few waiting jobs of a lane are like."""

    tokens_per_job: float | None
    """Of prompt and output together, as far as the output may go; None where none waits."""
    may_go: bool
    """Whether some job of it may be taken, as far as tenants' limits go."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "LaneSample":
        """As the script tells it."""
        tokens = found["prompt_tokens"] + found["prompt_bytes"] / BYTES_PER_TOKEN + found["output_tokens"]
        return cls(tokens / found["sampled"] if found["sampled"] else None, bool(found["may_go"]))


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """Everything that is told of one model."""

    counts: QueueCounts
    samples: Sequence[LaneSample]
    """In the order of the lanes of ``counts``."""
    late_leases: int
    """That nobody has renewed in time, or that have ended already."""
    redelivered: int
    """Unfinished jobs that have lost a worker or an engine at least once."""
    held_tenants: int
    """Pairs of lane and tenant whose next job has to wait for one of theirs to end."""
    rate: DrainRate | None
    workers: Sequence[WorkerPresence]

    @property
    def ready(self) -> list[WorkerPresence]:
        """Workers that take its jobs."""
        return [worker for worker in self.workers if worker.is_ready]

    @property
    def unfinished(self) -> int:
        """Jobs that somebody still has to work on, or works on; not those whose time has not come."""
        return self.counts.waiting + self.counts.leased + self.counts.suspect

    @property
    def backlog_tokens(self) -> float:
        """Prompt and most output of all unfinished jobs: each lane's as a few of its jobs are, the rest as the mean."""
        lanes = list(zip(self.counts.lanes, self.samples, strict=True))
        waiting = sum(lane.waiting * (sample.tokens_per_job or 0.0) for lane, sample in lanes)
        sampled = sum(lane.waiting for lane, sample in lanes if sample.tokens_per_job is not None)
        usual = waiting / sampled if sampled else self._usual_tokens
        return waiting + (self.unfinished - sampled) * usual

    @property
    def _usual_tokens(self) -> float:
        rate = self.rate
        return rate.tokens_per_second / rate.jobs_per_second if rate and rate.jobs_per_second else UNKNOWN_OUTPUT_TOKENS

    @property
    def backlog_seconds(self) -> float | None:
        """Until all of it is done at the rate of the last minute; None while that is not known."""
        if not self.unfinished:
            return 0.0
        rate = self.rate
        return self.backlog_tokens / rate.tokens_per_second if rate and rate.tokens_per_second else None

    @property
    def wait_reason(self) -> WaitReason | None:
        """Why the next job has not begun; None where none waits."""
        waiting = [(lane, sample) for lane, sample in zip(self.counts.lanes, self.samples, strict=True) if lane.waiting]
        if not waiting:
            return None
        served = [(lane, sample) for lane, sample in waiting if self._serves(lane)]
        if not served:
            return WaitReason.NO_READY_WORKER
        if not any(sample.may_go for _, sample in served):
            return WaitReason.TENANT_LIMIT
        has_idle = any(not worker.running_jobs for worker in self.ready)
        return WaitReason.STARTING if has_idle else WaitReason.WORKERS_BUSY

    def _serves(self, lane: LaneCounts) -> bool:
        return any(worker.serves(lane.priority) for worker in self.ready)


LANES: Final[tuple[Priority, ...]] = tuple(PRIORITY_STEPS)
