"""What a cancel sends to Redis, and what the reply means: everything but the sending."""

import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from producer import keys
from producer.contract import Failure, FailureCode
from producer.errors import NotCancellable, ResultExpired
from producer.jobs import CancelOutcome, Submission, job_id_of
from producer.message import origin
from producer.outcome import read_outcome, revoked_result, unknown_job
from producer.script import Script, ScriptRun
from producer.submission import Destination

CANCEL_SCRIPT: Final = Script.named("cancel")
TASK_REVOKED_ROUTING_KEY: Final = "task.revoked"
NO_WORKER: Final = "producers@fleet"
"""Stands in Flower for the worker of a job that was cancelled before one had it. One name for all producers: Flower
lists every name that it is told as a worker."""

_CELERY_REVOKES: Final = "a job that a Celery canvas sent is cancelled with that app's own control.revoke"
_TRANSIENT: Final = 1


def prepare_cancel(job: str | Submission, destination: Destination) -> ScriptRun:
    """The script run that cancels this job, or of this id's submissions only the one given. Repeating it is safe."""
    job_id = job_id_of(job)
    names = keys.QueueKeys("")
    arguments = (
        job_id,
        job.submission_token if isinstance(job, Submission) else "",
        revoked_result(job_id, datetime.now(UTC)),
        destination.result_seconds,
        destination.record_seconds,
        names.cancels,
        names.cancelled_channel,
        f"/{destination.database}.{keys.EVENT_EXCHANGE}/{TASK_REVOKED_ROUTING_KEY}",
        *task_revoked_event(job_id),
        NO_WORKER,
    )
    return ScriptRun(CANCEL_SCRIPT, (keys.job_record(job_id), keys.result(job_id)), arguments)


def task_revoked_event(job_id: str) -> tuple[bytes, bytes, bytes]:
    """Celery's ``task-revoked`` event, as kombu publishes it: head, middle and tail.

    Between them go the worker's name, as the inside of a JSON string in a JSON string, and the time, as a number.
    """
    event = {
        "type": "task-revoked",
        "uuid": job_id,
        "terminated": False,
        "signum": None,
        "expired": False,
        "pid": os.getpid(),
    }
    envelope = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": origin()},
        "properties": {
            "delivery_mode": _TRANSIENT,
            "delivery_info": {"exchange": keys.EVENT_EXCHANGE, "routing_key": TASK_REVOKED_ROUTING_KEY},
            "priority": 0,
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    # No clock and no utcoffset: a receiver goes by its own clock, and seconds since the epoch need no shifting.
    open_body = (_open_object(event) + b',"hostname":').decode()
    return _open_object(envelope) + b',"body":' + orjson.dumps(open_body)[:-1], b',\\"timestamp\\":', b'}"}'


def _open_object(content: dict[str, Any]) -> bytes:
    """A JSON object without its closing brace."""
    return orjson.dumps(content)[:-1]


def read_cancel_reply(job_id: str, reply: Sequence[bytes]) -> CancelOutcome:
    """What the cancel script answered.

    Raises:
        NotCancellable: no producer submitted the job.
        ResultExpired: nothing is known of the job, or of this submission any more.
    """
    match [reply[0].decode(), *reply[1:]]:
        case ["cancelled"]:
            return CancelOutcome.CANCELLED
        case ["ended", bytes(stored)]:
            outcome = read_outcome(stored)
            was_cancelled = isinstance(outcome, Failure) and outcome.code is FailureCode.CANCELLED
            return CancelOutcome.ALREADY_CANCELLED if was_cancelled else CancelOutcome.ENDED
        case ["superseded"]:
            raise ResultExpired(f"nothing is known of this submission of job {job_id}: a later one has its id now")
        case ["untracked"]:
            raise NotCancellable(f"job {job_id} was not submitted by a producer: {_CELERY_REVOKES}")
    raise ResultExpired(f"{unknown_job(job_id)}; {_CELERY_REVOKES}")
