"""The message that the producer builds is the one that Celery 5.7 and kombu 5.7 would have built."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from celery import Celery
from kombu.transport.virtual import Channel, Message

from producer.contract import (
    MAX_MESSAGE_BYTES,
    ChatMessage,
    GenerationRequest,
    Priority,
    SystemFields,
)
from producer.errors import InvalidRequest
from producer.message import NewJob, TimedMessage, describe, new_job, task_message, task_sent_event

NOW = 1_790_000_000.123456


def job(**fields: object) -> NewJob:
    """A job with a known id."""
    return NewJob("job-1", "token-1", GenerationRequest.model_validate({"model": "m", "prompt": "a secret"} | fields))


def decoded(message: TimedMessage) -> Message:
    """The message as kombu's consumer would see it."""
    return Message(json.loads(message.at(NOW)), channel=_DecodingChannel())  # type: ignore[no-untyped-call]


class _DecodingChannel(Channel):
    """Kombu's virtual channel as far as it decodes bodies; it has no connection."""

    def __init__(self) -> None:
        """Without the connection that the stock channel asks for."""


def test_the_headers_are_those_of_celerys_protocol_2() -> None:
    """Name by name and value by value, but for our own ``fleet`` header."""
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    theirs = Celery("compare", set_as_current=False).amqp.as_task_v2(
        "job-1", "fleet.generate", args=({},), expires=deadline, argsrepr="model m, 8 prompt bytes", kwargsrepr="{}"
    )
    ours = dict(decoded(task_message(job(deadline=deadline))).headers)

    fleet = ours.pop("fleet")
    assert ours.pop("origin").startswith("gen")
    assert theirs.headers.pop("origin").startswith("gen")
    assert ours == theirs.headers
    assert SystemFields.model_validate(fleet) == SystemFields(submission_token="token-1", enqueued_at=NOW)  # noqa: S106 - not a password


def test_kombu_decodes_the_body_to_the_request_and_celerys_empty_embed() -> None:
    """A plain JSON string, no base64."""
    asked = job(metadata={"quote": '"}]'}, prompt="line\nünï \U0001f600")
    args, kwargs, embed = decoded(task_message(asked)).payload

    assert [GenerationRequest.model_validate(argument) for argument in args] == [asked.request]
    assert kwargs == {}
    assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.mark.parametrize(("priority", "step"), list(zip(Priority, (0, 3, 6, 9), strict=True)))
def test_the_properties_route_an_acknowledged_message_back_to_its_lane(priority: Priority, step: int) -> None:
    """Kombu restores an unacknowledged message by these."""
    message = decoded(task_message(job(priority=priority)))

    assert message.properties["priority"] == step
    assert message.delivery_info == {"exchange": "", "routing_key": "fleet.m"}
    assert message.properties["correlation_id"] == "job-1"
    assert message.properties["reply_to"] == ""
    assert message.properties["delivery_mode"] == 2
    assert message.delivery_tag
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")


def test_the_message_says_what_it_has_to_and_no_prompt_outside_its_body() -> None:
    """Monitors show headers and events; the prompt is in neither."""
    raw = json.loads(task_message(job()).at(NOW))
    body = raw.pop("body")

    assert "a secret" in body
    assert "a secret" not in json.dumps(raw)
    assert b"a secret" not in task_sent_event(job()).at(NOW)


def test_a_lone_surrogate_in_a_prompt_arrives_as_it_was() -> None:
    """It is legal in a Python string and in JSON, though not in UTF-8."""
    args, _, _ = decoded(task_message(job(prompt="\ud800"))).payload

    assert args[0]["prompt"] == "\ud800"


def test_a_request_over_the_message_limit_is_refused_with_both_sizes() -> None:
    """A prompt within its own limit can still be too large as JSON: control characters take six bytes."""
    with pytest.raises(InvalidRequest, match=rf"bytes of JSON; at most {MAX_MESSAGE_BYTES:,}"):
        task_message(job(prompt="\x01" * 1_500_000))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"prompt": "é"}, "model m, 2 prompt bytes"),
        ({"prompt": None, "prompt_token_ids": (1, 2, 3)}, "model m, 3 prompt tokens"),
        ({"prompt": None, "messages": (ChatMessage(role="user", content="abc"),)}, "model m, 3 prompt bytes"),
    ],
)
def test_monitors_see_a_request_by_its_size(fields: dict[str, Any], text: str) -> None:
    """The stand-in for the arguments in headers and events."""
    assert describe(job(**fields).request) == text


@pytest.mark.parametrize("model", ["m", 'a "quoted" name', "back\\slash", "\0id\0", "ünï/\x06\x16"])
def test_a_models_name_is_never_taken_for_a_gap_of_the_template(model: str) -> None:
    """Nor does anything in it end the text that it stands in."""
    named = NewJob("job-1", "token-1", GenerationRequest(model=model, prompt="x"))
    message, event = decoded(task_message(named)), decoded(task_sent_event(named)).payload

    assert message.delivery_info["routing_key"] == f"fleet.{model}"
    assert message.headers["argsrepr"] == event["args"] == f"model {model}, 1 prompt bytes"
    assert event["queue"] == f"fleet.{model}"


def test_a_job_id_is_a_random_uuid() -> None:
    """In the form that everybody reads, and none twice."""
    ids = [new_job(job().request).job_id for _ in range(1_000)]

    assert len(set(ids)) == 1_000
    assert {(UUID(job_id).version, UUID(job_id).variant, str(UUID(job_id)) == job_id) for job_id in ids} == {
        (4, RFC_4122, True)
    }


def test_two_submissions_share_neither_id_nor_token() -> None:
    """Not even of one and the same request."""
    request = job().request
    first, second = new_job(request), new_job(request)

    assert first.job_id != second.job_id
    assert first.submission_token != second.submission_token


def test_the_sent_event_has_every_field_that_celery_sends_with_one() -> None:
    """Flower reads them; ``utcoffset`` is left out on purpose, because receivers would shift the time by it."""
    theirs = Celery("compare", set_as_current=False).amqp.as_task_v2("job-1", "fleet.generate", create_sent_event=True)
    event = decoded(task_sent_event(job())).payload

    routing = {"queue", "exchange", "routing_key"}
    assert event.keys() == theirs.sent_event.keys() | routing | {"type", "timestamp", "hostname", "pid", "clock"}
    assert event["type"] == "task-sent"
    assert event["timestamp"] == NOW
    assert event["expires"] is None


def test_the_sent_event_carries_the_deadline_as_the_message_does() -> None:
    """Flower shows it."""
    asked = job(deadline=datetime(2030, 1, 1, tzinfo=UTC))

    event, message = decoded(task_sent_event(asked)).payload, decoded(task_message(asked))

    assert event["expires"] == message.headers["expires"] == "2030-01-01T00:00:00+00:00"
