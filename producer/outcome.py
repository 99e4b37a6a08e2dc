"""What Celery stored about a job, read as the contract's result or failure; and the answer of a cancelled one."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError

from producer.attempts import attempts_of
from producer.contract import Failure, FailureCode, GenerationResult, Priority
from producer.errors import InferenceFailed, ResultExpired, ResultNotReady
from producer.jobs import JobState, JobStatus
from producer.strict import readable

Outcome = GenerationResult | Failure
"""How a job ended."""

_LIVE_STATES: Final = {"STARTED": JobState.RUNNING, "RETRY": JobState.RETRYING}
_TIME_LIMITS: Final = ("TimeLimitExceeded", "SoftTimeLimitExceeded")


def read_outcome(meta: bytes | None) -> Outcome | None:
    """How the job ended by Celery's stored JSON; None while it has not."""
    stored = _load(meta)
    match stored.get("status"):
        case "SUCCESS":
            return _success(stored.get("result"))
        case "REVOKED":
            return _revoked(_text(stored.get("result")))
        case "FAILURE":
            return _failure(stored.get("result"))
    return None


def revoked_result(job_id: str, done_at: datetime) -> bytes:
    """The result of a cancelled job, as Celery's Redis backend stores its ``TaskRevokedError``.

    The status comes first, because our scripts look for it in the first bytes.
    """
    error = {"exc_type": "TaskRevokedError", "exc_message": ["cancelled"], "exc_module": "celery.exceptions"}
    return orjson.dumps(
        {
            "status": "REVOKED",
            "result": error,
            "traceback": None,
            "children": None,
            "date_done": done_at.isoformat(),
            "task_id": job_id,
        }
    )


def answer(job_id: str, *, has_record: bool, meta: bytes | None) -> GenerationResult | None:
    """The job's result; None while it is on its way. Look for the record before the result: a worker writes later.

    Raises:
        InferenceFailed: the job failed.
        ResultExpired: neither its record nor a result exists.
    """
    outcome = read_outcome(meta)
    if outcome is None and meta is None and not has_record:
        raise ResultExpired(unknown_job(job_id))
    return None if outcome is None else unwrapped(outcome)


def unwrapped(outcome: Outcome) -> GenerationResult:
    """The result.

    Raises:
        InferenceFailed: the job failed.
    """
    if isinstance(outcome, Failure):
        raise InferenceFailed(outcome.code, outcome.message)
    return outcome


def not_ready(job_id: str) -> ResultNotReady:
    """The error of a caller whose timeout ran out."""
    return ResultNotReady(f"job {job_id} is still queued or running; asking again is fine")


def some_not_ready(waiting: int, total: int) -> ResultNotReady:
    """The error of a caller whose timeout ran out before all of its jobs had ended."""
    return ResultNotReady(f"{waiting:,} of {total:,} jobs are still queued or running; asking again is fine")


def lost_job(job_id: str) -> Failure:
    """How a job ends of which Redis holds neither record nor result any more."""
    return Failure(code=FailureCode.INTERNAL, message=unknown_job(job_id))


def unknown_job(job_id: str) -> str:
    """The sentence about a job id that nothing is known of."""
    return f"nothing is known of job {job_id}: the id is wrong, or its result was kept for its lifetime and is gone"


def status_of(job_id: str, record: Mapping[bytes, bytes], meta: bytes | None) -> JobStatus:
    """Where the job stands, by its record and Celery's stored JSON.

    Raises:
        ResultExpired: neither exists, or the record says that it ended and the result is gone.
    """
    fields = {name.decode(): value.decode() for name, value in record.items()}
    stored = _load(meta)
    outcome = read_outcome(meta)
    if not fields and not stored:
        raise ResultExpired(unknown_job(job_id))
    result = outcome if isinstance(outcome, GenerationResult) else None
    status = JobStatus(
        job_id=job_id,
        state=_state(outcome, _LIVE_STATES.get(stored.get("status", "")) or _recorded_state(job_id, fields, outcome)),
        model=fields.get("model") or (result.model if result else None),
        enqueued_at=_seconds(fields.get("enqueued_at")),
        started_at=_seconds(fields.get("started_at")),
        worker=(result.worker if result else None) or fields.get("worker") or _started_by(stored),
        failure=outcome if isinstance(outcome, Failure) else None,
        tenant=fields.get("tenant") or None,
        priority=Priority(fields["priority"]) if "priority" in fields else None,
        attempt=result.attempt if result else int(fields["attempt"]) if "attempt" in fields else None,
        ended_at=None if outcome is None else _moment(stored.get("date_done")),
        usage=result.usage if result else None,
        timings=result.timings if result else None,
    )
    return replace(status, attempts=attempts_of(status, fields))


def _load(meta: bytes | None) -> dict[str, Any]:
    if meta is None:
        return {}
    try:
        stored = orjson.loads(meta)
    except orjson.JSONDecodeError:
        stored = _load_leniently(meta)
    return stored if isinstance(stored, dict) else {"status": "FAILURE", "result": "the stored result is no object"}


def _load_leniently(meta: bytes) -> Any:  # noqa: ANN401 - whatever JSON held
    # Celery writes with Python's json, which lets through what strict JSON refuses: NaN, a lone surrogate.
    try:
        return json.loads(meta)
    except ValueError as error:
        return {"status": "FAILURE", "result": f"the stored result is not JSON: {error}"}


def _state(outcome: Outcome | None, live: JobState) -> JobState:
    if outcome is None:
        return live
    if isinstance(outcome, GenerationResult):
        return JobState.SUCCEEDED
    return JobState.CANCELLED if outcome.code is FailureCode.CANCELLED else JobState.FAILED


def _recorded_state(job_id: str, fields: Mapping[str, str], outcome: Outcome | None) -> JobState:
    state = JobState(fields.get("state", JobState.QUEUED))
    if outcome is None and state not in {JobState.QUEUED, JobState.RUNNING, JobState.RETRYING}:
        raise ResultExpired(unknown_job(job_id))
    return state


def _started_by(stored: Mapping[str, Any]) -> str | None:
    result = stored.get("result")
    return result.get("hostname") if stored.get("status") == "STARTED" and isinstance(result, dict) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text else None


def _moment(text: Any) -> float | None:  # noqa: ANN401 - whatever JSON held
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _success(result: Any) -> Outcome:  # noqa: ANN401 - whatever JSON held
    try:
        return GenerationResult.model_validate(result)
    except ValidationError as error:
        return Failure(code=FailureCode.INTERNAL, message=f"the stored answer is not a result: {readable(error)}")


def _revoked(reason: str) -> Failure:
    if "expired" in reason:
        return Failure(code=FailureCode.EXPIRED, message="the deadline passed before the job was done")
    return Failure(code=FailureCode.CANCELLED, message="the job was cancelled")


def _failure(stored: Any) -> Failure:  # noqa: ANN401 - whatever JSON held
    error = stored if isinstance(stored, dict) else {"exc_message": stored}
    kind, text = str(error.get("exc_type", "an unnamed error")), _text(error)
    if error.get("exc_module") == InferenceFailed.__module__ or kind == InferenceFailed.__name__:
        return _stated_failure(error.get("exc_message"), text)
    if kind in _TIME_LIMITS:
        return Failure(code=FailureCode.EXPIRED, message=f"the job ran into its time limit ({text})")
    if kind == "NotRegistered":
        return Failure(code=FailureCode.INVALID_REQUEST, message=f"the worker knows no such task: {text}")
    return Failure(code=FailureCode.INTERNAL, message=f"{kind}: {text}")


def _stated_failure(message: Any, text: str) -> Failure:  # noqa: ANN401 - whatever JSON held
    match message:
        case [str(code), str(sentence)] if code in set(FailureCode):
            return Failure(code=FailureCode(code), message=sentence)
    return Failure(code=FailureCode.INTERNAL, message=text)


def _text(error: Any) -> str:  # noqa: ANN401 - whatever JSON held
    """Celery's stored exception arguments as one text."""
    message = error.get("exc_message") if isinstance(error, dict) else error
    return ", ".join(str(part) for part in message) if isinstance(message, list | tuple) else str(message)
