"""Keys of the gateway: who is let in, and that nobody sees another tenant's jobs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
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


@pytest.fixture
def door(redis_url: str, tmp_path: Path) -> Iterator[Door]:
    """In front of a fleet."""
    with simulated(redis_url, tmp_path), Producer(redis_url) as producer:
        acme, other = (producer.create_key(name) for name in ("acme", "other"))
        operator = producer.create_key("ops", role=Role.OPERATOR)
        with running_gateway(redis_url, tmp_path, "--require-keys") as address:
            yield Door(address, redis_url, acme, other, operator)


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
    with httpx.Client(base_url=door.address, headers=authorization) as client:
        asked = [
            client.post("/v1/chat/completions", json=CHAT),
            client.post("/v1/completions", json={"model": "sim", "prompt": "x"}),
            client.post("/v1/jobs", json=JOB),
            client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
            client.post("/v1/jobs", json={"no": "job"}),
            client.get("/v1/nothing"),
            client.get("/openapi.json"),
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
