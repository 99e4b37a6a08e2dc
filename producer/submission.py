"""What a submission sends to Redis, and what the reply means: everything but the sending."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from pydantic import ValidationError

from producer import keys
from producer.contract import GenerationRequest
from producer.errors import InvalidRequest, UnknownModel
from producer.jobs import Submission
from producer.message import NewJob, new_job, task_message, task_sent_event
from producer.strict import readable

ENQUEUE_SCRIPT: Final = files("producer").joinpath("enqueue.lua").read_text(encoding="utf-8")
ENQUEUE_SHA: Final = hashlib.sha1(ENQUEUE_SCRIPT.encode(), usedforsecurity=False).hexdigest()

RESULT_SECONDS: Final = 24 * 3600
"""How long an answer is kept; Celery's ``result_expires`` unless it is set."""

RequestLike = GenerationRequest | Mapping[str, Any]
"""A request, or its fields by name."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where submissions of one producer go."""

    database: int
    """Number of the Redis database; Celery's event channels carry it in their name."""
    record_seconds: int = keys.JOB_RECORD_SECONDS
    result_seconds: int = RESULT_SECONDS
    """How long the answer of a job is kept that is answered here: a cancelled one. 0 is for ever."""


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """One run of the enqueue script. Running it again is safe: the job id decides."""

    job_id: str
    request: GenerationRequest
    script_keys: tuple[str, ...]
    script_arguments: tuple[str | bytes | int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that travel to Redis, nearly."""
        return sum(len(part) for part in self.script_arguments if isinstance(part, bytes))


def as_request(request: RequestLike | None, fields: Mapping[str, Any] | None = None) -> GenerationRequest:
    """The request that a caller gave, either whole or as fields.

    Raises:
        InvalidRequest: it breaks the contract, or both or none were given.
    """
    if (request is None) == (not fields):
        raise InvalidRequest("give either one GenerationRequest or its fields by name")
    if isinstance(request, GenerationRequest):
        return request
    if not isinstance(request, Mapping | None):
        raise InvalidRequest(
            f"a request is a GenerationRequest or a mapping of its fields, not {type(request).__name__}"
        )
    try:
        return GenerationRequest.model_validate(fields if request is None else request)
    except ValidationError as error:
        raise InvalidRequest(readable(error)) from error


def body_digest(request: GenerationRequest) -> str:
    """What tells two requests with one idempotency key apart: SHA-256 over all fields that differ from their default.

    Left out are the key itself and the deadline: a caller that tries again counts its deadline from that moment.
    """
    content = request.model_dump(mode="json", exclude_defaults=True, exclude={"idempotency_key", "deadline"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def prepare(request: GenerationRequest, destination: Destination) -> PreparedJob:
    """The script run that submits this request as a new job.

    Raises:
        InvalidRequest: it is too large.
    """
    job = new_job(request)
    return PreparedJob(job.job_id, request, _script_keys(job), _script_arguments(job, destination))


def _script_keys(job: NewJob) -> tuple[str, ...]:
    request = job.request
    names = [
        keys.MODELS,
        keys.job_record(job.job_id),
        keys.lane(request.model, request.priority),
        keys.QueueKeys(request.model).doorbell,
    ]
    if request.idempotency_key is not None:
        names.append(keys.idempotency(request.tenant, request.idempotency_key))
    return tuple(names)


def _script_arguments(job: NewJob, destination: Destination) -> tuple[str | bytes | int, ...]:
    request = job.request
    message, event = task_message(job), task_sent_event(job)
    return (
        job.job_id,
        job.submission_token,
        request.model,
        request.tenant or "",
        request.priority.value,
        body_digest(request),
        destination.record_seconds,
        message.head,
        message.tail,
        keys.task_sent_channel(destination.database),
        event.head,
        event.tail,
        keys.job_record(""),
    )


def read_reply(job: PreparedJob, reply: Sequence[bytes]) -> Submission:
    """What the enqueue script answered.

    Raises:
        UnknownModel: the fleet takes no jobs for this model.
        InvalidRequest: the idempotency key names a job with another body.
    """
    kind, *values = (part.decode() for part in reply)
    if kind == "unknown_model":
        raise UnknownModel(job.request.model, values)
    if kind == "conflict":
        raise InvalidRequest(
            f"idempotency_key: {job.request.idempotency_key!r} names job {values[0]}, which asked something else"
        )
    job_id, enqueued_at, submission_token = values
    return Submission(job_id, float(enqueued_at), kind == "duplicate", submission_token)
