"""The message of a job as Celery reads it from Redis: kombu's envelope around Celery's protocol 2, all of it JSON.

What the jobs of one model and priority have in common is a :class:`Template` with gaps, made once; the enqueue script
fills in what is each job's own, and the moment of enqueueing, which only the Redis server knows. The body is a plain
JSON string (kombu takes it without base64 when ``body_encoding`` is absent).
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import orjson
from pydantic_core import PydanticSerializationError

from producer import keys
from producer.answers import SCHEMA_VERSION
from producer.contract import MAX_MESSAGE_BYTES, GenerationRequest, Priority
from producer.errors import InvalidRequest

_REQUEST_TO_JSON: Final = GenerationRequest.__pydantic_serializer__.to_json
_BODY_TAIL: Final = '],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""The bits of a UUID that say how to read it."""
_PERSISTENT: Final = 2
_TRANSIENT: Final = 1

# Nobody who chooses a model's name can know it, so no name is ever taken for a gap.
_NONCE: Final = secrets.token_hex(8)
_GAP: Final = re.compile(
    rf"""\\*"\\+u0000{_NONCE}:json:(\w+)\\+u0000\\*" | \\+u0000{_NONCE}:text:(\w+)\\+u0000""", re.VERBOSE
)


def _text(gap: str) -> str:
    """Stands inside a JSON string for a value that needs no escaping, or has it."""
    return f"\0{_NONCE}:text:{gap}\0"


def _json(gap: str) -> str:
    """Stands for a whole JSON value."""
    return f"\0{_NONCE}:json:{gap}\0"


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON text with gaps."""

    parts: tuple[str, ...]
    """A literal, the name of a gap, a literal, and so on."""

    @classmethod
    def of(cls, content: object) -> Self:
        """From content that has :func:`_text` and :func:`_json` where the gaps are."""
        parts = _GAP.split(_dumps(content))
        # Two groups, of which one matched: a literal, two names, a literal, and so on.
        literals, gaps = parts[::3], [first or second for first, second in zip(parts[1::3], parts[2::3], strict=True)]
        return cls((literals[0], *(part for pair in zip(gaps, literals[1:], strict=True) for part in pair)))

    def filled(self, values: Mapping[str, str]) -> bytes:
        """The whole text, as the enqueue script makes it."""
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self.parts)).encode()


@dataclass(frozen=True, slots=True)
class TimedMessage:
    """One JSON text, but for the moment of enqueueing."""

    template: Template
    values: Mapping[str, str]

    def at(self, seconds: float) -> bytes:
        """The whole text; ``seconds`` since the epoch."""
        return self.template.filled({**self.values, "now": f"{seconds:.6f}"})  # as the server writes it


@dataclass(slots=True)
class NewJob:
    """A request with the identity it travels under."""

    job_id: str
    submission_token: str
    request: GenerationRequest


def new_job(request: GenerationRequest) -> NewJob:
    """A job with a fresh id and submission token."""
    return NewJob(*fresh_identity(), request)


def fresh_identity() -> tuple[str, str]:
    """A job id, which is a UUID of version 4 as text, and a submission token."""
    digits = os.urandom(32).hex()
    job_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    return job_id, digits[32:]


@dataclass(frozen=True, slots=True)
class Route:
    """What the jobs of one process, model and priority have in common."""

    message: Template
    """The message: Celery's headers and kombu's envelope. Its ``fleet`` header holds
    :class:`~producer.contract.SystemFields`. Gaps: id, token, size, expires, body and now; trace in a traced one."""
    event: Template
    """Celery's ``task-sent`` event, as kombu publishes it: it makes Flower show the queued job. Gaps: id, size, now
    and escaped_expires, for its body is a JSON text inside a JSON string."""
    encoded: bytes
    """All of it for the enqueue script, as JSON."""


def route(model: str, priority: Priority, *, is_traced: bool = False) -> Route:
    """The route of these jobs, from this process."""
    return _route(model, priority, os.getpid(), is_traced)


@lru_cache(maxsize=256)
def _route(model: str, priority: Priority, process_id: int, is_traced: bool) -> Route:  # noqa: FBT001 - of the cache
    message, event = _message_template(model, priority, is_traced=is_traced), _event_template(model, process_id)
    encoded = {
        "model": model,
        "priority": priority.value,
        "lane": keys.lane(model, priority),
        "lanes": keys.all_lanes(model),
        "step": keys.PRIORITY_STEPS[priority],
        "doorbell": keys.QueueKeys(model).doorbell_of(priority),
        "message": message.parts,
        "event": event.parts,
    }
    return Route(message, event, orjson.dumps(encoded))


def origin() -> str:
    """This process in the form of Celery's anonymous node names."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


def encode_request(request: GenerationRequest) -> str:
    """The request as JSON, without what is not set.

    Raises:
        InvalidRequest: it has more than :data:`~producer.contract.MAX_MESSAGE_BYTES`.
    """
    try:
        encoded = _REQUEST_TO_JSON(request, exclude_none=True)
    except PydanticSerializationError:
        # A lone surrogate is legal in a Python string and, escaped, in JSON; but it has no UTF-8.
        encoded = json.dumps(request.model_dump(mode="json", exclude_none=True), separators=(",", ":")).encode()
    if (size := len(encoded)) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(f"the encoded request has {size:,} bytes of JSON; at most {MAX_MESSAGE_BYTES:,} are taken")
    return encoded.decode()


def describe(request: GenerationRequest) -> str:
    """What monitors show as the job's arguments: its size, never its text."""
    return _description(request.model, describe_size(request))


def describe_size(request: GenerationRequest) -> str:
    """The part of :func:`describe` that is the job's own."""
    if request.prompt_token_ids is not None:
        return f"{len(request.prompt_token_ids)} prompt tokens"
    return f"{request.prompt_bytes} prompt bytes"


def body_text(request: GenerationRequest) -> bytes:
    """The inside of the JSON string that is the message's body: arguments and embedded options, themselves as JSON.

    Raises:
        InvalidRequest: the request is too large.
    """
    return orjson.dumps(f"[[{encode_request(request)}{_BODY_TAIL}")[1:-1]


def expires(request: GenerationRequest) -> str:
    """The deadline as JSON."""
    return "null" if request.deadline is None else f'"{request.deadline.isoformat()}"'


def task_message(job: NewJob) -> TimedMessage:
    """The element of the lane.

    Raises:
        InvalidRequest: the request is too large.
    """
    values = _values(job) | {"body": body_text(job.request).decode(), "expires": expires(job.request)}
    return TimedMessage(route(job.request.model, job.request.priority).message, values)


def task_sent_event(job: NewJob) -> TimedMessage:
    """The event that goes with it."""
    values = _values(job) | {"escaped_expires": expires(job.request).replace('"', '\\"')}
    return TimedMessage(route(job.request.model, job.request.priority).event, values)


def _values(job: NewJob) -> dict[str, str]:
    return {"id": job.job_id, "token": job.submission_token, "size": describe_size(job.request)}


def _description(model: str, size: str) -> str:
    return f"model {model}, {size}"


def _message_template(model: str, priority: Priority, *, is_traced: bool) -> Template:
    fleet = {
        "schema_version": SCHEMA_VERSION,
        "submission_token": _text("token"),
        # A gap in the messages of jobs that are traced alone: the others do not pay for it.
        "trace_context": _json("trace") if is_traced else {},
        "enqueued_at": _json("now"),
    }
    envelope = {
        "body": _text("body"),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "properties": {
            "correlation_id": _text("id"),
            "reply_to": "",
            "delivery_mode": _PERSISTENT,
            "delivery_info": {"exchange": "", "routing_key": keys.queue(model)},
            "priority": keys.PRIORITY_STEPS[priority],
            "delivery_tag": _text("id"),
        },
        "headers": _headers(model) | {"fleet": fleet},
    }
    return Template.of(envelope)


def _headers(model: str) -> dict[str, Any]:
    """Celery's protocol 2 headers."""
    return {
        "lang": "py",
        "task": keys.TASK_NAME,
        "id": _text("id"),
        "shadow": None,
        "eta": None,
        "expires": _json("expires"),
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": _text("id"),
        "parent_id": None,
        "argsrepr": _description(model, _text("size")),
        "kwargsrepr": "{}",
        "origin": origin(),
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _event_template(model: str, process_id: int) -> Template:
    event = {
        "type": "task-sent",
        "uuid": _text("id"),
        "root_id": _text("id"),
        "parent_id": None,
        "name": keys.TASK_NAME,
        "args": _description(model, _text("size")),
        "kwargs": "{}",
        "retries": 0,
        "eta": None,
        "expires": _json("escaped_expires"),
        "queue": keys.queue(model),
        "exchange": "",
        "routing_key": keys.queue(model),
        "hostname": origin(),
        "pid": process_id,
        "clock": None,
        # No utcoffset: receivers would shift the timestamp by it, and seconds since the epoch need no shifting.
        "timestamp": _json("now"),
    }
    envelope = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": origin()},
        "properties": {
            "delivery_mode": _TRANSIENT,
            "delivery_info": {"exchange": keys.EVENT_EXCHANGE, "routing_key": keys.TASK_SENT_ROUTING_KEY},
            "priority": 0,
            "delivery_tag": _text("id"),
        },
        "body": _dumps(event),
    }
    return Template.of(envelope)


def _dumps(content: object) -> str:
    return orjson.dumps(content).decode()
