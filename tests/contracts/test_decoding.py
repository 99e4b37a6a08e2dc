"""Bodies that are decoded before Celery asks: kombu would have made the same of them."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport.virtual import Channel, Message
from kombu.utils.json import dumps

from workers.consumer import decode_ahead

PLAIN = [[{"model": "m", "prompt": "x \u2028 \U0001f600", "n": 1.5}], {}, {"callbacks": None}]


class Bodies(Channel):
    """Kombu's decoding of bodies, without a connection."""

    def __init__(self) -> None:
        """Nothing to connect to."""

    def __del__(self, _print: object = None) -> None:
        """Nothing to give back."""


def message(body: object, encoding: str | None = None, content_type: str = "application/json") -> Message:
    """As kombu makes it of an element of the queue."""
    properties = {"delivery_tag": "tag", "body_encoding": encoding}
    envelope = {"body": body, "properties": properties, "headers": {}}
    return Message(envelope | {"content-type": content_type, "content-encoding": "utf-8"}, channel=Bodies())


def both(*arguments: Any) -> tuple[Any, Any]:  # noqa: ANN401 - those of message
    """What kombu makes of it, and what it is after we had it first."""
    ours = message(*arguments)
    decode_ahead(ours)
    return message(*arguments).payload, ours.payload


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        [[{"at": datetime(2026, 11, 23, tzinfo=UTC)}], {}, {}],
        [[float("inf"), "\ud800"], {}, {}],
        [[{"__type__": "not one of kombu's"}], {}, {}],
    ],
)
def test_what_celery_gets_is_what_kombu_decodes(content: object) -> None:
    """As text and as base64; kombu's own types and what only Python takes for JSON included."""
    text = dumps(content)
    kombus, ours = both(text)
    assert ours == kombus == content
    kombus, ours = both(base64.b64encode(text.encode()).decode(), "base64")
    assert ours == kombus == content


def test_a_plain_body_is_not_decoded_again() -> None:
    """``Message.payload`` gives what is in ``_decoded_cache``."""
    ours = message(json.dumps(PLAIN))
    decode_ahead(ours)
    ours.body = "no JSON"
    assert ours.payload == PLAIN


@pytest.mark.parametrize(
    ("body", "content_type"), [("no JSON", "application/json"), ("gAJ9", "application/x-python-serialize")]
)
def test_what_kombu_refuses_is_left_to_it(body: str, content_type: str) -> None:
    """Its error is what the consumer answers with."""
    ours = message(body, None, content_type)
    decode_ahead(ours)
    with pytest.raises((DecodeError, ContentDisallowed)):
        _ = ours.payload
