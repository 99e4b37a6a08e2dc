"""``fleet.generate`` as a Celery signature, for chains, groups and chords of any Celery app (extra ``canvas``).

In a chain the :class:`~producer.contract.GenerationResult` of the task before arrives as the first argument (a list of
them in the body of a chord). The worker puts its text, or the texts with a blank line between them, where the prompt
or the last message says ``{{previous}}``; where neither says so, it appends it after a blank line::

    chain(generate(model="m", prompt="Write a story."), generate(model="m", prompt="Summarise: {{previous}}"))

A signature is sent by the app's own Celery connection, whose broker and result backend must be the fleet's Redis. The
fleet keeps no record of such a job until a worker takes it: ask Celery's ``AsyncResult`` for its result.
"""

from typing import Any

import orjson
from celery.canvas import Signature

from producer import keys
from producer.contract import GenerationRequest
from producer.errors import InvalidRequest
from producer.message import describe, encode_request
from producer.submission import as_request


def generate(request: GenerationRequest | None = None, /, **fields: Any) -> Signature[Any]:  # noqa: ANN401 - pydantic checks them
    """A signature that generates, given whole or as the fields of a :class:`GenerationRequest`.

    Queue, priority and deadline of the request become options of the signature.

    Raises:
        InvalidRequest: it breaks the contract, or has what only ``Producer.submit`` honours: an idempotency key, a
            conversation or a webhook.
    """
    asked = as_request(request, fields)
    for name in ("idempotency_key", "conversation_id", "webhook"):
        if getattr(asked, name) is not None:
            raise InvalidRequest(f"{name}: only Producer.submit honours it; leave it out of a signature")
    options: dict[str, Any] = {
        "queue": keys.queue(asked.model),
        "priority": keys.PRIORITY_STEPS[asked.priority],
        "serializer": "json",
        # Otherwise Celery shows the prompt in events and headers.
        "argsrepr": describe(asked),
        "kwargsrepr": "{}",
    }
    if asked.deadline is not None:
        options["expires"] = asked.deadline.isoformat()
    arguments = (orjson.loads(encode_request(asked)),)
    return Signature(keys.TASK_NAME, args=arguments, options=options)
