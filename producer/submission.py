"""What submissions send to Redis, and what the reply means: everything but the sending."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from producer import keys
from producer.contract import GenerationRequest
from producer.errors import InvalidRequest, QueueFull, UnknownModel
from producer.flow import flow_of
from producer.jobs import Submission
from producer.message import NewJob, Route, body_text, describe_size, expires, fresh_identity, route
from producer.script import Script, ScriptRun
from producer.strict import readable

ENQUEUE_SCRIPT: Final = Script.named("flows", "enqueue")

RESULT_SECONDS: Final = 24 * 3600
"""How long an answer is kept; Celery's ``result_expires`` unless it is set."""

RequestLike = GenerationRequest | Mapping[str, Any]
"""A request, or its fields by name."""

Refusal = InvalidRequest | UnknownModel | QueueFull
"""Why a request did not become a job."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where submissions of one producer go."""

    database: int
    """Number of the Redis database; Celery's event channels carry it in their name."""
    record_seconds: int = keys.JOB_RECORD_SECONDS
    result_seconds: int = RESULT_SECONDS
    """How long the answer of a job is kept that is answered here: a cancelled one. 0 is for ever."""


@dataclass(slots=True)
class PreparedJob(NewJob):
    """A job as the enqueue script takes it. Submitting the same one again makes no second job."""

    route: Route
    size: str
    """How monitors see the request."""
    body: bytes
    options: bytes
    """What few jobs have, as JSON; empty for most."""

    @property
    def size_bytes(self) -> int:
        """Bytes that travel to Redis, nearly."""
        return len(self.body) + len(self.options)


Submittable = RequestLike | PreparedJob
"""What may be submitted with others: a request, or a job of an earlier attempt that was not settled."""


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


def as_job(request: Submittable) -> PreparedJob:
    """A new job for what a caller gave, or the job that it is.

    Raises:
        InvalidRequest: it breaks the contract, or is too large.
    """
    return request if isinstance(request, PreparedJob) else prepare(as_request(request))


def body_digest(request: GenerationRequest) -> str:
    """What tells two requests with one idempotency key apart: SHA-256 over all fields that differ from their default.

    Left out are the key itself and the deadline: a caller that tries again counts its deadline from that moment.
    """
    content = request.model_dump(mode="json", exclude_defaults=True, exclude={"idempotency_key", "deadline"})
    try:
        encoded = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # A lone surrogate, which strict JSON refuses.
        encoded = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(encoded).hexdigest()


def prepare(request: GenerationRequest) -> PreparedJob:
    """This request as a new job.

    Raises:
        InvalidRequest: it is too large.
    """
    body = body_text(request)
    shared = route(request.model, request.priority)
    return PreparedJob(*fresh_identity(), request, shared, describe_size(request), body, _options(request))


def _options(request: GenerationRequest) -> bytes:
    options: dict[str, Any] = {}
    if request.tenant is not None:
        options["tenant"] = request.tenant
    if request.deadline is not None:
        options["expires"] = expires(request)
    if (flow := flow_of(request)) is not None:
        options["flow"] = flow
    if request.idempotency_key is not None:
        options["idempotency"] = keys.idempotency(request.tenant, request.idempotency_key)
        options["digest"] = body_digest(request)
    return orjson.dumps(options) if options else b""


def enqueue_run(jobs: Sequence[PreparedJob], destination: Destination) -> ScriptRun:
    """The script run that submits these jobs. Repeating it is safe: the job ids decide."""
    numbers: dict[int, bytes] = {}
    routes: list[Route] = []
    arguments: list[str | bytes | int] = [b""] * _FIRST
    for job in jobs:
        number = numbers.get(id(job.route))
        if number is None:
            routes.append(job.route)
            number = numbers[id(job.route)] = b"%d" % len(routes)
        arguments += (number, job.job_id, job.submission_token, job.size, job.body, job.options)
    arguments[:_FIRST] = (
        destination.record_seconds,
        keys.task_sent_channel(destination.database),
        keys.job_record(""),
        b"[%b]" % b",".join(each.encoded for each in routes),
    )
    return ScriptRun(ENQUEUE_SCRIPT, (keys.MODELS, keys.LIMITS), arguments)


_FIRST: Final = 4
"""Arguments before those of the first job."""


def read_replies(jobs: Sequence[PreparedJob], reply: bytes) -> list[Submission | Refusal]:
    """What the enqueue script answered for each."""
    answer = orjson.loads(reply)
    now = float(answer["now"])
    found: list[Submission | Refusal] = [
        Submission(job.job_id, now, submission_token=job.submission_token) for job in jobs
    ]
    known_models = answer.get("known_models", ())
    for place, kind, *values in answer.get("others", ()):
        found[place - 1] = _read(jobs[place - 1], kind, values, known_models)
    return found


def _read(job: PreparedJob, kind: str, values: Sequence[Any], known_models: Sequence[str]) -> Submission | Refusal:
    match kind, *values:
        case "queued", enqueued_at:
            return Submission(job.job_id, float(enqueued_at), submission_token=job.submission_token)
        case "duplicate", job_id, enqueued_at, token:
            return Submission(job_id, float(enqueued_at), duplicate=True, submission_token=token)
        case "conflict", job_id:
            key = job.request.idempotency_key
            return InvalidRequest(f"idempotency_key: {key!r} names job {job_id}, which asked something else")
        case "queue_full", limit, depth:
            return QueueFull(job.request.model, int(limit), int(depth))
    return UnknownModel(job.request.model, known_models)


def read_reply(job: PreparedJob, reply: bytes) -> Submission:
    """The same, of a job that was submitted alone.

    Raises:
        UnknownModel: the fleet takes no jobs for this model.
        QueueFull: its queue has as many waiting jobs as it may have.
        InvalidRequest: the idempotency key names a job with another body.
    """
    [found] = read_replies([job], reply)
    if isinstance(found, Submission):
        return found
    raise found
