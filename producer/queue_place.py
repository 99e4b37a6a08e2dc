"""Where a waiting job stands in its queue, why it waits, and when it may begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from producer.contract import Priority
from producer.flow import escaped_tenant
from producer.jobs import JobState, JobStatus
from producer.keys import PRIORITY_STEPS
from producer.presence import WorkerPresence
from producer.script import Script, ScriptRun

PLACE_SCRIPT: Final = Script.named("flows", "place")


class WaitReason(StrEnum):
    """Why a job has not begun."""

    NO_READY_WORKER = "no_ready_worker"
    """Nobody serves its model at this moment."""
    NEXT_ATTEMPT = "next_attempt"
    """An attempt found no room; the next one is not due."""
    TENANT_LIMIT = "tenant_limit"
    """Its tenant has as many jobs running as it may have."""
    JOBS_BEFORE = "jobs_before"
    """Others go first: of its tenant, of more urgent lanes, or in their tenants' turns."""
    WORKERS_BUSY = "workers_busy"
    """It is next, and waits for room: every ready worker has jobs running."""
    STARTING = "starting"
    """Nothing keeps it: a worker takes it at this moment."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Of one job that waits."""

    reason: WaitReason
    position: int | None
    """Among the jobs of its tenant in its lane, 1 being the next; None while it is in no lane. Jobs that were submitted
    in one call have one position."""
    jobs_before: int | None
    """How many jobs of any tenant and lane are expected to begin before it."""
    estimated_start_seconds: float | None
    """From this moment, at the rate at which the model's workers finished jobs in their last minute; None where they
    finished none."""


def place_run(status: JobStatus) -> ScriptRun | None:
    """The script run that looks for a job's place; None for one that waits in no lane."""
    if status.state is not JobState.QUEUED or status.model is None or status.enqueued_at is None:
        return None
    step = PRIORITY_STEPS[status.priority or Priority.NORMAL]
    urgent = [str(other) for other in PRIORITY_STEPS.values() if other < step]
    moment = f"{status.enqueued_at:.6f}"
    return ScriptRun(PLACE_SCRIPT, (), [status.model, str(step), escaped_tenant(status.tenant), moment, *urgent])


def read_place(status: JobStatus, reply: bytes | None, workers: Sequence[WorkerPresence]) -> QueuePlace | None:
    """What that run and the model's workers say; None for a job that does not wait (any more)."""
    if status.state is JobState.RETRYING:
        return QueuePlace(WaitReason.NEXT_ATTEMPT, None, None, None)
    if status.state is not JobState.QUEUED or reply is None:
        return None
    found = orjson.loads(reply)
    ahead = found["ahead"]
    if ahead is False:
        return QueuePlace(WaitReason.STARTING, None, None, None)
    # Tenants that wait take turns, so about as many of each go before it; never more than there are.
    before = found["in_urgent_lanes"] + min(found["in_lane"] - 1, ahead * found["tenants"])
    ready = [worker for worker in workers if worker.is_ready and worker.serves(status.priority or Priority.NORMAL)]
    rate = sum(worker.jobs_per_second for worker in ready)
    return QueuePlace(_reason(found, before, ready), ahead + 1, before, (before + 1) / rate if rate > 0 else None)


def _reason(found: dict[str, Any], before: int, ready: Sequence[WorkerPresence]) -> WaitReason:
    if not ready:
        return WaitReason.NO_READY_WORKER
    if found["most_running"] is not False and found["running"] >= found["most_running"]:
        return WaitReason.TENANT_LIMIT
    if before > 0:
        return WaitReason.JOBS_BEFORE
    # Seats may be reserved and memory may be short: whether a busy worker has room, only it knows.
    is_any_idle = any(worker.running_jobs == 0 for worker in ready)
    return WaitReason.STARTING if is_any_idle else WaitReason.WORKERS_BUSY
