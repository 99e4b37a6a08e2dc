"""The message of a job as Celery reads it from Redis: kombu's envelope around Celery's protocol 2, all of it JSON.

Built as bytes with a gap for the moment of enqueueing, which only the Redis server knows: ``head``, the number,
``tail``. The body is a plain JSON string (kombu takes it without base64 when ``body_encoding`` is absent).
"""

import json
import os
import socket
import uuid
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic_core import PydanticSerializationError

from producer import keys
from producer.contract import MAX_MESSAGE_BYTES, SCHEMA_VERSION, GenerationRequest
from producer.errors import InvalidRequest

_BODY_TAIL: Final = '],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_PERSISTENT: Final = 2
_TRANSIENT: Final = 1


@dataclass(frozen=True, slots=True)
class TimedMessage:
    """One JSON text with a gap between ``head`` and ``tail`` for seconds since the epoch, as a plain number."""

    head: bytes
    tail: bytes

    def at(self, seconds: float) -> bytes:
        """The whole text."""
        return self.head + repr(seconds).encode() + self.tail


@dataclass(frozen=True, slots=True)
class NewJob:
    """A request with the identity it travels under."""

    job_id: str
    submission_token: str
    request: GenerationRequest


def new_job(request: GenerationRequest) -> NewJob:
    """A job with a fresh id and submission token."""
    return NewJob(str(uuid.uuid4()), uuid.uuid4().hex, request)


def origin() -> str:
    """This process in the form of Celery's anonymous node names."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


def encode_request(request: GenerationRequest) -> str:
    """The request as JSON, without what is not set.

    Raises:
        InvalidRequest: it has more than :data:`~producer.contract.MAX_MESSAGE_BYTES`.
    """
    try:
        text = request.model_dump_json(exclude_none=True)
    except PydanticSerializationError:
        # A lone surrogate is legal in a Python string and, escaped, in JSON; but it has no UTF-8.
        text = json.dumps(request.model_dump(mode="json", exclude_none=True), separators=(",", ":"))
    if (size := len(text.encode())) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(f"the encoded request has {size:,} bytes of JSON; at most {MAX_MESSAGE_BYTES:,} are taken")
    return text


def describe(request: GenerationRequest) -> str:
    """What monitors show as the job's arguments: its size, never its text."""
    if request.prompt_token_ids is not None:
        return f"model {request.model}, {len(request.prompt_token_ids)} prompt tokens"
    return f"model {request.model}, {request.prompt_bytes} prompt bytes"


def task_headers(job: NewJob) -> dict[str, Any]:
    """Celery's protocol 2 headers of the job."""
    deadline = job.request.deadline
    return {
        "lang": "py",
        "task": keys.TASK_NAME,
        "id": job.job_id,
        "shadow": None,
        "eta": None,
        "expires": deadline.isoformat() if deadline else None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": job.job_id,
        "parent_id": None,
        "argsrepr": describe(job.request),
        "kwargsrepr": "{}",
        "origin": origin(),
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def task_message(job: NewJob) -> TimedMessage:
    """The element of the lane; its ``fleet`` header holds :class:`~producer.contract.SystemFields`.

    Raises:
        InvalidRequest: the request is too large.
    """
    envelope = {
        "body": f"[[{encode_request(job.request)}{_BODY_TAIL}",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "properties": {
            "correlation_id": job.job_id,
            "reply_to": "",
            "delivery_mode": _PERSISTENT,
            "delivery_info": {"exchange": "", "routing_key": keys.queue(job.request.model)},
            "priority": keys.PRIORITY_STEPS[job.request.priority],
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    fleet = {
        "schema_version": SCHEMA_VERSION,
        "submission_token": job.submission_token,
        "trace_context": {},
    }
    head = (
        _open_object(envelope)
        + b',"headers":'
        + _open_object(task_headers(job))
        + b',"fleet":'
        + _open_object(fleet)
        + b',"enqueued_at":'
    )
    return TimedMessage(head, b"}}}")


def task_sent_event(job: NewJob) -> TimedMessage:
    """Celery's ``task-sent`` event, as kombu publishes it: it makes Flower show the queued job."""
    headers = task_headers(job)
    event = {
        "type": "task-sent",
        "uuid": job.job_id,
        "root_id": job.job_id,
        "parent_id": None,
        "name": keys.TASK_NAME,
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": 0,
        "eta": None,
        "expires": headers["expires"],
        "queue": keys.queue(job.request.model),
        "exchange": "",
        "routing_key": keys.queue(job.request.model),
        "hostname": headers["origin"],
        "pid": os.getpid(),
        "clock": None,
    }
    # No utcoffset: receivers would shift the timestamp by it, and seconds since the epoch need no shifting.
    envelope = {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": headers["origin"]},
        "properties": {
            "delivery_mode": _TRANSIENT,
            "delivery_info": {"exchange": keys.EVENT_EXCHANGE, "routing_key": keys.TASK_SENT_ROUTING_KEY},
            "priority": 0,
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    open_body = (_open_object(event) + b',"timestamp":').decode()
    # The body is a JSON text inside a JSON string: the gap lies between its opening and its closing quote.
    return TimedMessage(_open_object(envelope) + b',"body":' + orjson.dumps(open_body)[:-1], b'}"}')


def _open_object(content: dict[str, Any]) -> bytes:
    """A JSON object without its closing brace."""
    return orjson.dumps(content)[:-1]
