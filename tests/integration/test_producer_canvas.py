"""``generate`` as a signature: what Celery sends for it, alone and in a chain, group and chord."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery, Signature, chain, chord, group

from producer import InvalidRequest, keys
from producer.canvas import generate
from producer.contract import GenerationRequest, Priority

DEADLINE = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """Any app, whose broker and result backend are the fleet's Redis."""
    with Celery("pipeline", broker=redis_url, backend=redis_url, set_as_current=False) as pipeline:
        yield pipeline
        consumer = pipeline.backend.result_consumer
        consumer.stop()
        # Celery unsubscribes when a result's handle is collected, and would open a connection again for it.
        consumer._pubsub = None
        pipeline.backend.client.connection_pool.disconnect()


def lane(redis_url: str, priority: Priority = Priority.NORMAL) -> list[dict[str, Any]]:
    """The messages that wait in a lane of ``m``, oldest first."""
    with redis.Redis.from_url(redis_url) as client:
        return [json.loads(message) for message in reversed(client.lrange(keys.lane("m", priority), 0, -1))]


def within(app: Celery, signature: Signature[Any]) -> Signature[Any]:
    """The signature of this app, which is not the process' current one as a real pipeline's would be."""
    bound = app.signature(dict(signature))
    assert isinstance(bound, Signature)
    return bound


def body(message: dict[str, Any]) -> Any:  # noqa: ANN401 - a decoded body
    """Celery's (args, kwargs, embed); kombu sends it in base64."""
    return json.loads(base64.b64decode(message["body"]))


def test_a_signature_is_sent_to_the_lane_of_its_model_and_priority(redis_url: str, app: Celery) -> None:
    """With its deadline as Celery's expiry, and its size in place of its prompt."""
    signature = generate(model="m", prompt="a secret", priority="batch", deadline=DEADLINE)
    within(app, signature).apply_async()

    [message] = lane(redis_url, Priority.BATCH)
    assert message["headers"]["task"] == keys.TASK_NAME
    assert message["headers"]["expires"] == DEADLINE.isoformat()
    assert message["headers"]["argsrepr"] == "model m, 8 prompt bytes"
    [[request], _, _] = body(message)
    assert GenerationRequest.model_validate(request) == GenerationRequest(
        model="m", prompt="a secret", priority=Priority.BATCH, deadline=DEADLINE
    )


def test_in_a_chain_the_next_job_travels_with_the_first_and_takes_its_result(redis_url: str, app: Celery) -> None:
    """Queue, priority and request are all there when the worker sends it on."""
    first = generate(model="m", prompt="tell")
    second = generate(GenerationRequest(model="m", prompt="repeat: {{previous}}", priority=Priority.INTERACTIVE))
    chain(within(app, first), within(app, second)).apply_async()

    [message] = lane(redis_url)
    [_, _, embed] = body(message)
    [following] = embed["chain"]
    assert (following["task"], following["immutable"]) == (keys.TASK_NAME, False)
    assert (following["options"]["queue"], following["options"]["priority"]) == ("fleet.m", 0)
    assert following["args"][0]["prompt"] == "repeat: {{previous}}"


def test_the_members_of_a_group_and_of_a_chord_are_jobs_of_the_fleet(redis_url: str, app: Celery) -> None:
    """The chord's body travels with each of its members."""
    members = [within(app, generate(model="m", prompt=f"{number}")) for number in range(3)]
    group(members).apply_async()
    chord(members, within(app, generate(model="m", prompt="sum up: {{previous}}"))).apply_async()

    messages = lane(redis_url)
    assert [body(message)[0][0]["prompt"] for message in messages] == ["0", "1", "2"] * 2
    assert {body(message)[2]["chord"]["task"] for message in messages[3:]} == {keys.TASK_NAME}
    assert all(message["headers"]["group"] for message in messages)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "m"}, "exactly one of prompt"),
        ({"model": "m", "prompt": "x", "idempotency_key": "k"}, r"only Producer\.submit"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "conversation_id": "c"}, r"Producer\.submit"),
        ({"model": "m", "prompt": "x", "webhook": "https://example.org"}, r"webhook: only Producer\.submit"),
    ],
)
def test_what_a_signature_can_not_carry_is_refused_when_it_is_built(fields: dict[str, Any], words: str) -> None:
    """Not by a worker, later."""
    with pytest.raises(InvalidRequest, match=words):
        generate(**fields)
