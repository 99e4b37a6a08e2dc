"""Keys of the gateway: who is let in, and that nobody sees another tenant's jobs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
import redis
from openai import OpenAI
from typer.testing import CliRunner

from producer import Producer, keys
from producer.api_keys import Role
from producer.cli import build_app
from producer.errors import InvalidRequest
from producer.gateway.callers import KEYS_SECONDS
from tests.gateways import running_gateway
from tests.running import simulated
from tests.waiting import eventually

CHAT: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "Why queues?"}], "max_tokens": 5}
JOB: dict[str, Any] = {"model": "sim", "prompt": "Once", "sampling": {"max_tokens": 5}, "stream": True}


@dataclass(frozen=True)
class Door:
    """A gateway that asks for keys, and a key of each kind."""

    address: str
    redis_url: str
    acme: str
    other: str
    operator: str

    def client(self, key: str) -> httpx.Client:
        """Of whoever has this key."""
        return httpx.Client(base_url=self.address, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def door(own_redis_url: str, own_folder: Path) -> Iterator[Door]:
    """In front of a fleet."""
    with simulated(own_redis_url, own_folder), Producer(own_redis_url) as producer:
        acme, other = (producer.create_key(name) for name in ("acme", "other"))
        operator = producer.create_key("ops", role=Role.OPERATOR)
        with running_gateway(own_redis_url, own_folder, "--require-keys") as address:
            yield Door(address, own_redis_url, acme, other, operator)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Basic YTpi"}, "missing_api_key"),
        ({"Authorization": "Bearer fleet-wrong"}, "invalid_api_key"),
    ],
)
def test_who_has_no_key_is_let_in_nowhere(door: Door, authorization: dict[str, str], code: str) -> None:
    """Whatever the route and whatever the body; only that the gateway lives is told to everybody."""
    with httpx.Client(base_url=door.address, headers=authorization, timeout=60) as client:
        asked = [
            client.post("/v1/chat/completions", json=CHAT),
            client.post("/v1/completions", json={"model": "sim", "prompt": "x"}),
            client.post("/v1/jobs", json=JOB),
            client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
            client.post("/v1/jobs", json={"no": "job"}),
            client.get("/v1/nothing"),
            client.get("/openapi.json"),
            client.get("/v1/jobs"),
            client.post("/v1/jobs/bulk", content=b"{}\n"),
            client.post("/generate", json={"prompt": "x"}),
            client.post("/batch_generate", json={"prompts": ["x"]}),
            client.get("/model_info"),
            client.get("/v1/jobs/any"),
            client.get("/v1/jobs/any/result"),
            client.get("/v1/jobs/any/events"),
            client.delete("/v1/jobs/any"),
            client.get("/v1/models"),
            client.get("/v1/models/sim"),
        ]
        assert [(answer.status_code, answer.json()["error"]["code"]) for answer in asked] == [(401, code)] * len(asked)
        assert client.get("/health").status_code == 200


def test_the_official_client_is_let_in_with_its_key(door: Door) -> None:
    """And raises its own error with a wrong one."""
    with OpenAI(base_url=f"{door.address}/v1", api_key=door.acme, max_retries=0) as client:
        answer = client.chat.completions.create(**CHAT, user="ann")
        assert answer.choices[0].message.content
    client = OpenAI(base_url=f"{door.address}/v1", api_key="fleet-wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with redis.Redis.from_url(door.redis_url) as server:
        assert server.hget(keys.job_record(answer.id.removeprefix("chatcmpl-")), "tenant") == b"acme"


def test_a_tenant_sees_its_own_jobs_alone(door: Door) -> None:
    """To another one they do not exist, in no way to ask; an operator sees them all."""
    with door.client(door.acme) as acme, door.client(door.other) as other, door.client(door.operator) as operator:
        place = acme.post("/v1/jobs", json=JOB).headers["location"]
        for path in (place, f"{place}/result", f"{place}/events"):
            answer = other.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
        assert other.delete(place).status_code == 404
        assert acme.get(f"{place}/result", params={"wait": 30}).status_code == 200
        assert "event: ended" in acme.get(f"{place}/events").text
        assert acme.get(place).json()["tenant"] == operator.get(place).json()["tenant"] == "acme"
        assert operator.get(f"{place}/result").status_code == 200
        same = {"Idempotency-Key": "same"}
        first, second = (client.post("/v1/jobs", json=JOB, headers=same).json() for client in (acme, other))
        assert first["id"] != second["id"], "a key of one tenant names no job of another"


def test_nobody_submits_for_another_tenant_but_an_operator(door: Door) -> None:
    """In the body or as OpenAI's user."""
    with door.client(door.acme) as acme, door.client(door.operator) as operator:
        refused = acme.post("/v1/jobs", json=JOB | {"tenant": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_tenant")
        assert acme.post("/v1/jobs", json=JOB | {"tenant": "acme"}).status_code == 202
        place = operator.post("/v1/jobs", json=JOB | {"tenant": "acme"}).headers["location"]
        assert acme.get(place).status_code == 200
        answer = operator.post("/v1/chat/completions", json=CHAT | {"user": "acme"}).json()
        assert acme.get(f"/v1/jobs/{answer['id'].removeprefix('chatcmpl-')}").status_code == 200


def test_a_user_without_room_in_the_metadata_is_refused(door: Door) -> None:
    """It is one of the job's pairs: a note that would be lost is no note."""
    pairs = {f"k{at}": "v" for at in range(15)}
    with door.client(door.acme) as acme, door.client(door.operator) as operator:
        noted = CHAT | {"user": "ann", "metadata": pairs}
        assert acme.post("/v1/chat/completions", json=noted).status_code == 200
        full = CHAT | {"user": "ann", "metadata": pairs | {"k15": "v"}}
        refused = acme.post("/v1/chat/completions", json=full)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, "metadata", "invalid_parameter")
        assert "at most 15" in error["message"]
        assert operator.post("/v1/chat/completions", json=full).status_code == 200, "to an operator it is a tenant"


def test_a_revoked_key_opens_nothing_any_more(door: Door) -> None:
    """A few seconds later; a new one does from then on, too. Redis never held the key itself."""
    run = CliRunner(env={"FLEET_REDIS_URL": door.redis_url})
    listed = [line.split("\t") for line in run.invoke(build_app([]), ["keys", "list"]).output.splitlines()]
    assert [line[1:4] for line in listed] == [
        ["acme", "producer", "acme"],
        ["other", "producer", "other"],
        ["ops", "operator", "-"],
    ]
    with door.client(door.acme) as acme:
        assert acme.get("/v1/models").status_code == 200
        assert run.invoke(build_app([]), ["keys", "revoke", listed[0][0]]).exit_code == 0
        eventually(lambda: acme.get("/v1/models").status_code == 401, what="it is refused", seconds=KEYS_SECONDS + 5)
    made = run.invoke(build_app([]), ["keys", "create", "new", "--tenant", "acme"]).output.strip()
    with door.client(made) as new:
        eventually(lambda: new.get("/v1/models").status_code == 200, what="it is let in", seconds=KEYS_SECONDS + 5)
    assert isinstance(run.invoke(build_app([]), ["keys", "revoke", "none"]).exception, InvalidRequest)
    with redis.Redis.from_url(door.redis_url) as server:
        stored = b"".join(part for pair in server.hgetall(keys.API_KEYS).items() for part in pair)
    assert made.encode() not in stored
    assert door.other.encode() not in stored


def test_an_operators_key_has_no_tenant(redis_url: str) -> None:
    """Nor has any key an empty name."""
    with Producer(redis_url) as producer:
        with pytest.raises(InvalidRequest, match="leave the tenant out"):
            producer.create_key("ops", role=Role.OPERATOR, tenant="acme")
        with pytest.raises(InvalidRequest, match="1 to 256 characters"):
            producer.create_key("")


def test_without_keys_no_page_of_another_name_is_answered(redis_url: str, tmp_path: Path) -> None:
    """DNS rebinding: a page's own name leads to this machine, and its browser says that name in ``Host``."""
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
    with running_gateway(redis_url, tmp_path) as address, httpx.Client(base_url=address, timeout=60) as client:
        port = client.base_url.port
        for host in (f"localhost:{port}", "LOCALHOST", f"127.0.0.1:{port}", "127.8.9.1", f"[::1]:{port}", "[::1]"):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host
            assert client.post("/v1/jobs", json=JOB, headers={"Host": host}).status_code == 202, host
        for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "192.0.2.1", "[::2]", "", "["):
            for refused in (
                client.get("/v1/jobs", headers={"Host": host}),
                client.post("/v1/jobs", json=JOB, headers={"Host": host}),
            ):
                assert refused.status_code == 403, host
                assert refused.json()["error"]["code"] == "wrong_host"
                assert "--require-keys" in refused.json()["error"]["message"]
            assert client.get("/health", headers={"Host": host}).status_code == 200, "a probe says any name"


def test_no_form_of_another_page_is_read_as_json(redis_url: str, tmp_path: Path) -> None:
    """What a browser sends without asking first: no Content-Type, or one of the three that forms have."""
    job = {"model": "sim", "prompt": "x"}
    bodies = {"/v1/chat/completions": CHAT, "/v1/completions": job, "/v1/jobs": job, "/generate": job}
    forms = ("text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "multipart/form-data")
    with Producer(redis_url) as producer, running_gateway(redis_url, tmp_path) as address:
        producer.declare_model("sim")
        for path, fields in bodies.items():
            for headers in ({}, *({"Content-Type": kind} for kind in forms)):
                refused = httpx.post(f"{address}{path}", content=orjson.dumps(fields), headers=headers, timeout=60)
                assert refused.status_code == 400, (path, headers, refused.text)
                wanted = "send the body as JSON, with Content-Type: application/json"
                assert refused.json()["error"]["message"] == wanted
        assert not httpx.get(f"{address}/v1/jobs", timeout=60).json()["data"]
