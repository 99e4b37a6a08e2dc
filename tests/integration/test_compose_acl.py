"""The users of the containers' Redis (``deploy/compose/users.acl.in``): each can do its work, and nothing beside it."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from producer import Producer
from tests.acl_server import Guarded, fleet, guarded_server
from tests.exporters import RunningExporter, running_exporter
from tests.gateways import running_gateway
from tests.running import FLEET, simulated
from tests.waiting import eventually, free_port
from workers.transport.drain_policy import UNKNOWN_OUTPUT_TOKENS

KEYS = Path(__file__).parents[2] / "docs/redis-keys.md"
JOB: dict[str, Any] = {"model": "sim", "prompt": "Once", "sampling": {"max_tokens": 5}}
SLOW: dict[str, Any] = JOB | {"metadata": {"simulate": "slow:3"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guarded]:
    """With what ``make_secrets.sh`` made."""
    with guarded_server(tmp_path) as server:
        yield server


def use_the_gateway(client: httpx.Client) -> None:
    """Every kind of request, each of which must be answered."""
    chat = {"model": "sim", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}
    posts: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"stream": True, "prompt_cache_key": "p"}),
        ("/v1/chat/completions", chat | {"conversation_id": "c"}),
        ("/v1/chat/completions", chat | {"conversation_id": "c"}),
        ("/v1/completions", {"model": "sim", "prompt": "Why?"}),
        ("/generate", {"prompt": "Why?"}),
        ("/batch_generate", {"prompts": ["Why?", "How?"]}),
    ]
    for path, body in posts:
        answer = client.post(path, json=body)
        assert answer.status_code == httpx.codes.OK, (path, answer.text)
    for path in ("/v1/models", "/model_info", "/ready", "/v1/jobs", "/v1/conversations/c"):
        assert client.get(path).status_code == httpx.codes.OK, path
    lines = "\n".join('{"model": "sim", "prompt": "p", "sampling": {"max_tokens": 5}}' for _ in range(5))
    ndjson = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "bulk"}
    bulk = client.post("/v1/jobs/bulk", content=lines, headers=ndjson)
    assert bulk.text.count('"id"') == 5, bulk.text
    assert client.delete("/v1/conversations/c").status_code < 300


def jobs_that_wait_run_and_end(client: httpx.Client) -> list[str]:
    """Streamed, with deadlines and of a tenant; places asked for; one cancelled while it runs, one while it waits."""
    bodies = [SLOW | {"stream": n % 2 == 0, "deadline": "2100-01-01T00:00:00Z"} for n in range(6)]
    ids = [client.post("/v1/jobs", json=body).raise_for_status().json()["id"] for body in bodies]
    eventually(lambda: client.get(f"/v1/jobs/{ids[0]}").json()["state"] == "running", what="a job runs")
    assert client.get(f"/v1/jobs/{ids[-1]}").status_code == httpx.codes.OK
    for cancelled in (ids.pop(0), ids.pop()):
        assert client.delete(f"/v1/jobs/{cancelled}").status_code < 300
    return ids


def test_every_user_can_do_its_work(server: Guarded, tmp_path: Path) -> None:
    """A whole fleet: keys, requests of each kind, a worker that is killed, Flower. Nothing is refused by the server."""
    with simulated(server.url("worker"), tmp_path, max_num_seqs=2) as running:
        fleet(server, "models", "alias", "other", "sim")
        fleet(server, "tenants", "set", "acme", "--weight", "2", "--max-running-jobs", "2")
        fleet(server, "queues", "limit", "sim", "--max-waiting-jobs", "100")
        key = fleet(server, "keys", "create", "acme").strip()
        with (
            running_gateway(server.url("gateway"), tmp_path, "--require-keys") as address,
            running_exporter(server.url("exporter"), tmp_path) as exporter,
            httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client,
        ):
            use_the_gateway(client)
            look_at_figures(exporter)
            ids = jobs_that_wait_run_and_end(client)
            running.kill()
            eventually(lambda: "told Flower of" in exporter.log.read_text(), seconds=60, what="Flower is told of them")
            running.start()
            for job in ids:
                result = client.get(f"/v1/jobs/{job}/result", params={"wait": 60})
                assert result.status_code == httpx.codes.OK, result.text
                client.get(f"/v1/jobs/{job}/events").raise_for_status()
        look_at_flower(server, tmp_path)
        for command in (("doctor",), ("queues",), ("workers",), ("dead", "list"), ("keys", "list"), ("tenants",)):
            fleet(server, *command)
    assert server.refusals() == []


def look_at_figures(exporter: RunningExporter) -> None:
    """Those that every part of Redis has to be read for."""
    assert exporter.value("fleet_redis_up") == 1
    assert exporter.value("fleet_workers_ready", model="sim") == 1
    assert exporter.value("fleet_queue_drain_jobs_per_second", model="sim") > 0


def look_at_flower(server: Guarded, folder: Path) -> None:
    """It knows the worker and its queue, and lets nobody in who has no password."""
    port = free_port()
    user, _, password = (server.secrets / "flower_basic_auth").read_text().strip().partition(":")
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*FLEET, "flower", "--redis-url", server.url("observer"), "--port", str(port)],
            env=os.environ | {"FLEET_FLOWER__BASIC_AUTH_FILE": str(server.secrets / "flower_basic_auth")},
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"

    def page(path: str, *, known: bool = True) -> httpx.Response | None:
        try:
            return httpx.get(address + path, auth=(user, password) if known else None, timeout=20)
        except httpx.TransportError:
            return None

    def says(path: str, text: str) -> bool:
        answer = page(path)
        return answer is not None and answer.status_code == httpx.codes.OK and text in answer.text

    try:
        eventually(lambda: says("/api/workers?refresh=1", "fleet.sim"), seconds=60, what="Flower knows the worker")
        eventually(lambda: says("/api/queues/length", "fleet.sim"), what="Flower counts the queue")
        for path in ("/api/workers", "/workers", "/"):
            stranger = page(path, known=False)
            assert stranger is not None
            assert stranger.status_code == httpx.codes.UNAUTHORIZED
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("gateway", ("HSET", "fleet:keys", "digest", "{}")),
        ("gateway", ("HGETALL", "fleet:leased:sim")),
        ("gateway", ("RPOP", "fleet.sim")),
        ("gateway", ("CONFIG", "GET", "*")),
        ("worker", ("HGETALL", "fleet:keys")),
        ("worker", ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")),
        ("worker", ("GET", "somebody-elses")),
        ("observer", ("BRPOP", "fleet.sim", "1")),
        ("observer", ("GET", "celery-task-meta-x")),
        ("observer", ("HGETALL", "fleet:job:x")),
        ("exporter", ("RPOP", "fleet.sim")),
        ("exporter", ("SET", "celery-task-meta-x", "forged")),
        ("exporter", ("HGETALL", "fleet:keys")),
        ("exporter", ("HGETALL", "fleet:conversation:t:x")),
        ("exporter", ("HVALS", "fleet:dead")),
        ("exporter", ("GETRANGE", "celery-task-meta-x", "0", "64")),
        ("exporter", ("LINDEX", "fleet:suspects:sim", "0")),
        ("exporter", ("ZRANGE", "fleet:delayed:sim", "0", "-1")),
        ("exporter", ("HVALS", "fleet:redelivery:sim")),
        ("exporter", ("HGET", "fleet:leased:sim", "x")),
        ("exporter", ("ZRANGE", "fleet:webhooks:awaiting", "0", "-1")),
        ("exporter", ("DEL", "fleet:suspects:sim")),
        ("operator", ("ACL", "LIST")),
        ("operator", ("FLUSHALL",)),
        ("operator", ("GET", "somebody-elses")),
    ],
)
def test_no_user_can_do_what_is_not_its_work(server: Guarded, user: str, command: tuple[str, ...]) -> None:
    """Each of these would work for a user that may do everything."""
    with server.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_an_exporter_that_may_read_no_prompt_counts_all_the_same(server: Guarded, tmp_path: Path) -> None:
    """Operators may take that right away; what is lost is the size of what waits, and the age of a lane's list."""
    before = server.admin.acl_getuser("exporter")
    rules = (server.secrets / "redis_users").read_text()
    [line] = re.findall(r"^user exporter .*$", rules, re.MULTILINE)
    without = re.sub(r" \([^)]*\+lindex[^)]*\)", "", line)
    assert without != line
    server.admin.execute_command("ACL", "SETUSER", *f"exporter reset {without.split(None, 2)[2]}".split())
    assert len(server.admin.acl_getuser("exporter")["selectors"]) == len(before["selectors"]) - 1
    with Producer(server.url("operator")) as producer, running_exporter(server.url("exporter"), tmp_path) as exporter:
        producer.declare_model("later")
        for tenant in (None, "acme"):
            producer.submit(model="later", prompt="a secret", tenant=tenant)
        assert exporter.value("fleet_redis_up") == 1
        assert exporter.value("fleet_queue_waiting_jobs", model="later", lane="normal") == 2
        assert exporter.value("fleet_queue_backlog_tokens", model="later") == 2 * UNKNOWN_OUTPUT_TOKENS
    with server.client("exporter") as thief:
        for command in (("LINDEX", "fleet.later", "0"), ("HGET", "fleet:waiting:later", "x")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                thief.execute_command(*command)


def test_nobody_without_a_password(server: Guarded) -> None:
    """And the health check's user can do nothing but ask whether the server answers."""
    with (
        redis.Redis.from_url(f"redis://{server.address}") as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()
    password = (server.secrets / "redis_password_health").read_text().strip()
    with redis.Redis.from_url(f"redis://health:{password}@{server.address}", protocol=2) as health:
        assert health.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            health.get("fleet:models")


def test_every_key_in_the_table_is_somebodys(server: Guarded) -> None:
    """A key that the fleet gets has to be given to a user."""
    rows = re.findall(r"^\| ((?:\\\||[^|])*) \| ([a-z ]+) \|", KEYS.read_text(), re.MULTILINE)
    table = [name for cell, kind in rows if kind != "channel" for name in re.findall(r"`([^`]+)`", cell)]
    names = [re.sub(r"<[^>]*>", "x", name) for name in table]
    assert "fleet:claims:x" in names
    users = [server.admin.acl_getuser(user) for user in ("gateway", "worker")]
    patterns = [pattern for user in users for pattern in user["keys"]]
    for name in names:
        assert any(matches(pattern, name) for pattern in patterns), name


def matches(pattern: str, name: str) -> bool:
    """Whether a key's name is covered by a pattern of an ACL, with or without its permissions."""
    glob = re.escape(pattern.partition("~")[2]).replace(r"\*", ".*")
    return re.fullmatch(glob, name, re.DOTALL) is not None
