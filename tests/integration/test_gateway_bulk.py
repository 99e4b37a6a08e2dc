"""Many jobs in one request over HTTP, and the lists that they are found in."""

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from producer import Producer
from producer.api_keys import Role
from producer.contract import MAX_MESSAGE_BYTES
from producer.gateway.bulk import MOST_JOBS
from tests.gateways import running_gateway

NDJSON = {"Content-Type": "application/x-ndjson"}
BULK = "/v1/jobs/bulk"


@pytest.fixture
def client(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a gateway whose model has no worker."""
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
    with running_gateway(redis_url, tmp_path) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def job(prompt: str, **fields: Any) -> bytes:  # noqa: ANN401 - the request's
    """A line."""
    return orjson.dumps({"model": "sim", "prompt": prompt} | fields)


def told(response: httpx.Response) -> list[dict[str, Any]]:
    """The answer's lines."""
    assert response.headers["content-type"] == "application/x-ndjson"
    return [orjson.loads(line) for line in response.text.splitlines()]


def test_every_line_is_a_job_or_says_why_not(client: httpx.Client) -> None:
    """In their order, however the body is cut into pieces; a bad line costs no other."""
    lines = [job(f"prompt {n}") for n in range(1_200)]
    lines[3], lines[700], lines[701] = b"{", job("x", model="none"), job("x", colour="red")
    body = b"\n".join(lines) + b"\n\n"
    cut = random.Random(3)  # noqa: S311 - no secret

    def pieces() -> Iterator[bytes]:
        at = 0
        while at < len(body):
            size = cut.choice([1, 7, 100, 5_000])
            yield body[at : at + size]
            at += size

    response = client.post(BULK, content=pieces(), headers=NDJSON)
    answered = told(response)
    assert response.status_code == 200
    assert [line["index"] for line in answered] == list(range(1_200))
    codes = {line["index"]: line["error"]["code"] for line in answered if "error" in line}
    assert codes == {3: "invalid_request", 700: "model_not_found", 701: "invalid_request"}
    ids = [line["id"] for line in answered if "id" in line]
    listed = client.get("/v1/jobs", params={"limit": 1000}).json()
    rest = client.get("/v1/jobs", params={"limit": 1000, "after": listed["last_id"]}).json()
    assert (len(listed["data"]), listed["has_more"], rest["has_more"]) == (1000, True, False)
    assert {known["id"] for known in listed["data"] + rest["data"]} == set(ids)
    first = client.get(f"/v1/jobs/{ids[0]}").json()
    assert (first["state"], first["queue"]["reason"], first["queue"]["position"]) == ("queued", "no_ready_worker", 1)


def test_an_idempotency_key_makes_the_whole_request_safe_to_repeat(client: httpx.Client) -> None:
    """Each job has its part of it, unless it brings its own."""
    body = b"\n".join([job("a"), job("b"), job("c", idempotency_key="own")])
    headers = NDJSON | {"Idempotency-Key": "night"}
    first, again = (told(client.post(BULK, content=body, headers=headers)) for _ in range(2))
    assert [line["id"] for line in again] == [line["id"] for line in first]
    assert [line["duplicate"] for line in first + again] == [False] * 3 + [True] * 3
    own = client.post("/v1/jobs", json=orjson.loads(job("c")), headers={"Idempotency-Key": "own"}).json()
    assert own["id"] == first[2]["id"]


def test_what_is_too_much_is_left_unread_and_said(client: httpx.Client) -> None:
    """Jobs before it are queued; the last line says from where on to send again."""
    one_too_many = b"\n".join([job("x")] * (MOST_JOBS + 5))
    response = client.post(BULK, content=one_too_many, headers=NDJSON)
    *queued, last = told(response)
    assert (response.status_code, len(queued)) == (413, MOST_JOBS)
    assert all("id" in line for line in queued)
    assert (last["index"], last["error"]["code"]) == (MOST_JOBS, "too_large")
    long = job("x" * (MAX_MESSAGE_BYTES + 10))
    response = client.post(BULK, content=job("x") + b"\n" + long, headers=NDJSON)
    first, last = told(response)
    assert response.status_code == 413
    assert "id" in first
    assert (last["index"], last["error"]["code"]) == (1, "too_large")


def test_a_body_of_another_kind_is_refused(client: httpx.Client) -> None:
    """JSON is not lines of it."""
    refused = client.post(BULK, json=[{"model": "sim", "prompt": "x"}])
    assert refused.status_code == 400
    assert "application/x-ndjson" in refused.json()["error"]["message"]


def test_lists_have_their_tenants_jobs_alone(redis_url: str, tmp_path: Path) -> None:
    """A key's own, whatever it asks for; an operator may ask for all, for one tenant, or for none."""
    with Producer(redis_url) as producer:
        producer.declare_model("sim")
        made = {name: producer.create_key(name) for name in string.ascii_lowercase[:2]}
        operator = producer.create_key("ops", role=Role.OPERATOR)

    def ids(client: httpx.Client, key: str, **query: str) -> set[str]:
        answer = client.get("/v1/jobs", params=query, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200, answer.text
        return {known["id"] for known in answer.json()["data"]}

    with (
        running_gateway(redis_url, tmp_path, "--require-keys") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        assert client.post(BULK, content=job("x"), headers=NDJSON).status_code == 401
        mine = {}
        for name, key in (*made.items(), ("", operator)):
            headers = NDJSON | {"Authorization": f"Bearer {key}"}
            body = b"\n".join([job("x"), job("y"), job("z", tenant="c")])
            lines = told(client.post(BULK, content=body, headers=headers))
            mine[name] = {line["id"] for line in lines if "id" in line}
        assert [len(ids) for ids in mine.values()] == [2, 2, 3], "no tenant submits for another"
        assert ids(client, made["a"]) == ids(client, made["a"], tenant="a") == mine["a"]
        assert ids(client, operator) == mine["a"] | mine["b"] | mine[""]
        assert ids(client, operator, tenant="b", state="queued") == mine["b"]
        assert ids(client, operator, tenant="b", state="running") == set()
        assert ids(client, operator, tenant="") | ids(client, operator, tenant="c") == mine[""]
        others = client.get("/v1/jobs", params={"tenant": "b"}, headers={"Authorization": f"Bearer {made['a']}"})
        assert others.status_code == 403
        wrong = client.get("/v1/jobs", params={"state": "lost"}, headers={"Authorization": f"Bearer {operator}"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "query.state")


def test_a_key_that_leaves_no_room_for_the_jobs_places_is_refused(client: httpx.Client) -> None:
    """At once, with the limit; the longest that is taken makes jobs that a worker takes."""
    too_long = {"Idempotency-Key": "k" * 251}
    for refused in (
        client.post(BULK, content=job("x"), headers=NDJSON | too_long),
        client.post("/batch_generate", json={"prompts": ["x"]}, headers=too_long),
    ):
        assert refused.status_code == 400
        assert "at most 250 characters" in refused.json()["error"]["message"]
    key = "k" * 250
    [line] = told(client.post(BULK, content=job("x"), headers=NDJSON | {"Idempotency-Key": key}))
    again = client.post("/v1/jobs", json=orjson.loads(job("x")), headers={"Idempotency-Key": f"{key}/0"})
    assert (again.json()["id"], again.json()["duplicate"]) == (line["id"], True)
