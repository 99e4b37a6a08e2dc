"""Old messages in front of a worker of today, beside new ones: what a rolling upgrade looks like from the queue."""

import json
from pathlib import Path

import redis

from producer import Producer, keys
from tests.running import simulated
from tests.waiting import eventually

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_worker_of_today_answers_what_every_version_queued(redis_url: str, tmp_path: Path) -> None:
    """Byte for byte as they were queued, beside a job of today; only what is not due yet still waits."""
    messages = {json.loads(raw)["headers"]["id"]: raw for raw in map(Path.read_bytes, GOLDEN.glob("*/messages/*.json"))}
    waiting = {job for job, raw in messages.items() if json.loads(raw)["headers"]["eta"]}
    fleet = simulated(redis_url, tmp_path)
    fleet.options = {**fleet.options, "model.served_model_name": "m", "engine.tool_call_parser": "simulated"}
    with redis.Redis.from_url(redis_url) as client:
        for raw in messages.values():
            client.lpush(keys.lane_of_step("m", json.loads(raw)["properties"]["priority"]), raw)
        with fleet, Producer(redis_url) as producer:
            today = producer.submit(model="m", prompt="Why?", sampling={"max_tokens": 3})
            assert producer.result(today, 60).usage.completion_tokens == 3
            answered = messages.keys() - waiting
            eventually(
                lambda: client.exists(*map(keys.result, answered)) == len(answered), seconds=60, what="all are answered"
            )
            for job in answered:
                stored = json.loads(client.get(keys.result(job)) or b"{}")
                # It understands each; one thing the simulated engine says that it cannot do.
                assert stored["status"] == "SUCCESS" or "has no response_format json_schema" in str(stored), stored
            assert client.zcard("fleet:delayed:m") == len(waiting) == 1
