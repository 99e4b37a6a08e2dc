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
from producer.conversation_entries import TurnNote
from producer.drain_rate import MOST_RETRY_AFTER_SECONDS, DrainRate, read_rate, retry_after_seconds
from producer.errors import InvalidRequest, QueueFull, RedisFull, TurnInProgress, UnknownModel
from producer.flow import flow_of
from producer.job_list import MOST_LISTED
from producer.jobs import Submission
from producer.message import NewJob, Route, body_text, describe_size, expires, fresh_identity, route
from producer.script import Script, ScriptRun
from producer.strict import readable
from producer.tracing.creating import trace_context
from producer.webhook_note import note_of, webhook_refusal

ENQUEUE_SCRIPT: Final = Script.named("flows", "webhooks", "line", "memory", "enqueue")

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
    lists_jobs: bool = False
    """Whether its jobs are listed by tenant."""


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
        InvalidRequest: it is too large, a turn of a conversation, or names an adapter beside its model.
    """
    if request.conversation_id is not None:
        raise InvalidRequest("conversation_id: turns are submitted one by one, by Producer.submit alone")
    _refuse_adapter(request)
    identity = fresh_identity()
    return _prepared(identity, request, _options(request) | _trace(identity[0], request))


def prepare_turn(asked: GenerationRequest, whole: GenerationRequest, note: TurnNote) -> PreparedJob:
    """A turn as a new job: what the caller asked, the same with its history, and what the conversation is to note.

    Raises:
        InvalidRequest: it is too large.
    """
    _refuse_adapter(asked)
    identity = fresh_identity()
    options = _options(whole) | _trace(identity[0], whole) | {"turn": note.option}
    if asked.idempotency_key is not None:
        # Of the turn alone: it is the same turn when it is sent again, whatever the history has become.
        options["digest"] = body_digest(asked)
    return _prepared(identity, whole, options)


def renamed(job: PreparedJob, model: str, adapter: str | None) -> PreparedJob:
    """The same job of the model with this name, answered by its adapter where there is one.

    Raises:
        InvalidRequest: it is too large with that name.
    """
    request = job.request.model_copy(update={"model": model, "lora": adapter})
    options = orjson.loads(job.options or b"{}")
    # A turn's options say more than its request does, and so does a trace.
    if "turn" not in options:
        options = _options(request) | ({"trace": options["trace"]} if "trace" in options else {})
    return _prepared((job.job_id, job.submission_token), request, options)


def _refuse_adapter(request: GenerationRequest) -> None:
    # Whether there is such an adapter only the enqueue script knows, and it looks at the model's name alone.
    if request.lora is not None:
        raise InvalidRequest("lora: name the adapter as the model, and leave this out")


def _prepared(identity: tuple[str, str], request: GenerationRequest, options: dict[str, Any]) -> PreparedJob:
    body = body_text(request)
    shared = route(request.model, request.priority, is_traced="trace" in options)
    return PreparedJob(*identity, request, shared, describe_size(request), body, _encoded(options))


def _trace(job_id: str, request: GenerationRequest) -> dict[str, Any]:
    context = trace_context(job_id, request)
    return {} if context is None else {"trace": context}


def _options(request: GenerationRequest) -> dict[str, Any]:
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
    if request.webhook is not None:
        options["webhook"] = note_of(request)
    return options


def _encoded(options: dict[str, Any]) -> bytes:
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
        MOST_LISTED if destination.lists_jobs else 0,
        b"[%b]" % b",".join(each.encoded for each in routes),
    )
    return ScriptRun(ENQUEUE_SCRIPT, (), arguments)


_FIRST: Final = 5
"""Arguments before those of the first job."""


def read_replies(jobs: Sequence[PreparedJob], reply: bytes) -> list[Submission | Refusal]:
    """What the enqueue script answered for each.

    Raises:
        TurnInProgress: a job is a turn, which is submitted alone, and its conversation has changed.
    """
    answer = orjson.loads(reply)
    now = float(answer["now"])
    found: list[Submission | Refusal] = [
        Submission(job.job_id, now, submission_token=job.submission_token) for job in jobs
    ]
    known_models = answer.get("known_models", ())
    rates = {model: read_rate(entries, now) for model, entries in answer.get("drained", {}).items()}
    for place, kind, *values in answer.get("others", ()):
        job = jobs[place - 1]
        is_full = kind in {"queue_full", "tenant_full", "redis_full"}
        found[place - 1] = (
            _full(job.request, (kind, *values), rates.get(job.request.model))
            if is_full
            else _read(job, kind, values, known_models)
        )
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
        case "alias", model:
            return UnknownModel(job.request.model, (), alias_of=model)
        case "adapter", model:
            return UnknownModel(job.request.model, (), alias_of=model, is_adapter=True)
        case ("turn_taken",):
            raise TurnInProgress("another turn of this conversation came first")
    return webhook_refusal(job.request, kind, values) or UnknownModel(job.request.model, known_models)


def _full(request: GenerationRequest, found: Sequence[Any], rate: DrainRate | None) -> QueueFull:
    kind, limit, depth, *sharers = found
    if kind == "redis_full":
        return RedisFull(request.model, limit, depth)
    # A limit of none is never met again by waiting.
    seconds = retry_after_seconds(rate, depth - limit + 1, *sharers) if limit else MOST_RETRY_AFTER_SECONDS
    return QueueFull(request.model, limit, depth, request.tenant if kind == "tenant_full" else None, seconds)


def read_reply(job: PreparedJob, reply: bytes) -> Submission:
    """The same, of a job that was submitted alone.

    Raises:
        UnknownModel: the fleet takes no jobs for this model.
        QueueFull: its queue, or its tenant in it, has as many waiting jobs as it may have, or Redis no memory for more.
        InvalidRequest: the idempotency key names a job with another body.
        TurnInProgress: its conversation has changed since it was read.
    """
    [found] = read_replies([job], reply)
    if isinstance(found, Submission):
        return found
    raise found
