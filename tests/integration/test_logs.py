"""A whole fleet that logs JSON: every line parses, and none has a prompt, a password or a key, whatever goes wrong."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
import redis

from producer import InferenceFailed, InvalidRequest, Producer, keys
from tests.exporters import running_exporter
from tests.flowers import running_flower
from tests.gateways import running_gateway
from tests.log_lines import MARKER, PASSWORD, actions, guarded_server, lines_of, with_password
from tests.running import FLEET, VLLM_OPTIONS, RunningFleet, simulated
from tests.waiting import eventually

JSON = {"FLEET_LOG__FORMAT": "json", "FLEET_LOG__LEVEL": "debug"}


def ask_in_every_way(fleet: RunningFleet, producer: Producer) -> None:
    """Jobs that succeed and jobs that do not, with the marker wherever a caller may put something."""
    job = producer.submit(model=fleet.served, prompt=MARKER, sampling={"max_tokens": 4})
    assert producer.result(job, timeout_seconds=60).usage.completion_tokens
    refused = producer.submit(model=fleet.served, prompt=f"{MARKER} " * 20_000, sampling={"max_tokens": 4})
    with pytest.raises(InferenceFailed):
        producer.result(refused, timeout_seconds=60)
    with pytest.raises(InvalidRequest):
        producer.submit(model=fleet.served, prompt=MARKER, sampling={"max_tokens": MARKER})
    with redis.Redis.from_url(fleet.redis_url) as client:
        client.lpush(keys.queue(fleet.served), f"no message {MARKER}")
        body = {"body": f"{{{MARKER}", "headers": {"task": keys.TASK_NAME, "id": "broken"}}
        rest = {"content-type": "application/json", "content-encoding": "utf-8"}
        properties = {"delivery_info": {"exchange": "", "routing_key": ""}, "delivery_tag": "t", "body_encoding": None}
        client.lpush(keys.queue(fleet.served), json.dumps(body | rest | {"properties": properties}))
        other = body | rest | {"body": json.dumps([[MARKER], {}, {}]), "headers": {"task": "other.task", "id": "other"}}
        client.lpush(keys.queue(fleet.served), json.dumps(other | {"properties": properties}))
        eventually(lambda: client.exists(keys.result("broken")), what="the broken message is answered")
        eventually(lambda: client.exists(keys.result("other")), what="the message for nobody is answered")
    eventually(producer.dead_letters, what="what is no message is set aside")


def ask_the_gateway(address: str, fleet: RunningFleet, key: str) -> None:
    """Requests that succeed and requests that do not."""
    asked = {"model": fleet.served, "messages": [{"role": "user", "content": MARKER}], "max_tokens": 2}
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
        assert client.post("/v1/chat/completions", json=asked | {"stream": True}).status_code == 200
        assert client.post("/v1/chat/completions", json=asked | {"model": MARKER}).status_code == 404
        assert client.post("/v1/chat/completions", json=asked | {"max_tokens": MARKER}).status_code == 400
        assert client.get("/v1/models", params={"after": MARKER}).status_code == 200
    wrong = httpx.get(f"{address}/v1/models", headers={"Authorization": f"Bearer {MARKER}"}, timeout=60)
    assert wrong.status_code == 401


def test_every_process_writes_json_and_nothing_secret(tmp_path: Path) -> None:
    """At DEBUG, through refusals, broken messages and a poisoned job; the file has what the supervisor printed."""
    with guarded_server(tmp_path) as redis_url:
        fleet = simulated(redis_url, tmp_path)
        fleet.environ = JSON | {"FLEET_LOG__FILE": str(tmp_path / "rotated/fleet.log")}
        fleet.options = {**fleet.options, "worker.max_deliveries": 1}
        with (
            fleet,
            Producer(redis_url) as producer,
            running_flower(redis_url, tmp_path, **JSON),
            running_exporter(redis_url, tmp_path, **JSON),
        ):
            key = producer.create_key("acme", tenant="acme")
            arguments = ["--require-keys", "--log-format", "json", "--log-level", "DEBUG"]
            with running_gateway(redis_url, tmp_path, *arguments) as address:
                ask_the_gateway(address, fleet, key)
            ask_in_every_way(fleet, producer)
            poisoned = producer.submit(model="sim", prompt=MARKER, metadata={"simulate": "kills_engine"})
            with pytest.raises(InferenceFailed, match="engine"):
                producer.result(poisoned, timeout_seconds=60)
    said = lines_of(*(tmp_path / f"{name}.log" for name in ("fleet", "gateway", "flower", "exporter")))
    seen = {"worker_ready", "job_ended", "engine_died", "message_refused", "message_quarantined", "request_answered"}
    assert seen <= actions(said)
    assert {"supervisor", "worker", "gateway", "flower", "exporter"} == {line["process"] for line in said}
    texts = [file.read_text() for file in tmp_path.rglob("*.log*")]
    for never in (MARKER, PASSWORD, key):
        assert not any(never in text for text in texts), never
    assert (tmp_path / "rotated/fleet-worker.log").read_text() == (tmp_path / "fleet.log").read_text()


@pytest.mark.vllm
def test_vllm_and_its_engine_process_write_json_too(tmp_path: Path, tiny_model: Path) -> None:
    """From its import to its end; EngineCore, another process, among them."""
    with guarded_server(tmp_path) as redis_url:
        options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
        fleet = RunningFleet(redis_url, tmp_path, str(tiny_model), options, environ=JSON)
        with fleet, Producer(redis_url) as producer:
            ask_in_every_way(fleet, producer)
    said = lines_of(fleet.log)
    by_vllm = [line for line in said if line["logger"].startswith("vllm")]
    assert {line["process"] for line in by_vllm} == {"worker", "engine"}
    assert {line["model"] for line in by_vllm} == {fleet.served}
    assert not [line for line in said if line["action"] == "printed" and "INFO" in line["message"]]
    for never in (MARKER, PASSWORD):
        assert never not in fleet.log.read_text()


@pytest.mark.parametrize("command", [["worker", "--model", "sim"], ["exporter"]])
def test_a_password_that_redis_refuses_is_not_told(command: list[str], tmp_path: Path) -> None:
    """The address with the wrong one is in no line either."""
    with guarded_server(tmp_path) as redis_url:
        wrong = with_password(redis_url, f"not-{PASSWORD}")
        settings = JSON | {"FLEET_REDIS_URL": wrong, "FLEET_ENGINE__KIND": "simulated", "FLEET_WORKER__GPUS": "none"}
        log = tmp_path / "said.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*FLEET, *command], env=os.environ | settings, cwd=tmp_path, stdout=output, stderr=output
            )
        try:
            eventually(lambda: "assword" in log.read_text() or process.poll() is not None, what="it is refused")
        finally:
            process.terminate()
            process.wait(30)
    assert lines_of(log)
    assert PASSWORD not in log.read_text()
