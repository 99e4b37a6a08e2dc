"""Jobs over HTTP: submit now, ask later, follow and go on from anywhere; and what the door itself refuses."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from producer import Producer
from producer.cli import build_app
from producer.contract import MAX_MESSAGE_BYTES
from producer.errors import InvalidRequest
from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated
from tests.waiting import eventually

JOB: dict[str, Any] = {
    "model": "sim",
    "prompt": "Once upon a time",
    "sampling": {"max_tokens": 60, "temperature": 0, "ignore_eos": True},
}


@pytest.fixture(scope="module")
def fleet(own_redis_url: str, own_folder: Path) -> Iterator[RunningFleet]:
    """Answers at 100 tokens a second."""
    with simulated(own_redis_url, own_folder, seconds_per_token=0.01, max_num_seqs=8) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def client(fleet: RunningFleet, own_folder: Path) -> Iterator[httpx.Client]:
    """Of its gateway."""
    with running_gateway(fleet.redis_url, own_folder) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    event_id: str
    data: dict[str, Any]


def events(lines: Iterator[str]) -> Iterator[Event]:
    """What the lines of a stream say."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields.get("event", ""), fields.get("id", ""), orjson.loads(fields["data"]))
            fields = {}


def text(told: list[Event]) -> str:
    """Of the first choice."""
    return "".join(choice["text"] for event in told if event.name == "delta" for choice in event.data["choices"])


def test_a_job_is_submitted_asked_for_and_fetched(client: httpx.Client) -> None:
    """Its place is in the answer's Location; a result that is not there yet is no error."""
    submitted = client.post("/v1/jobs", json=JOB)
    assert submitted.status_code == 202
    place = submitted.headers["location"]
    assert place == f"/v1/jobs/{submitted.json()['id']}"
    early = client.get(f"{place}/result")
    assert (early.status_code, early.headers["retry-after"]) == (202, "1")
    assert early.json()["state"] in ("queued", "running")
    answered = client.get(f"{place}/result", params={"wait": 30})
    assert answered.status_code == 200
    assert answered.json()["usage"]["completion_tokens"] == 60
    status = client.get(place).json()
    assert (status["id"], status["model"], status["state"]) == (submitted.json()["id"], "sim", "succeeded")


def test_a_job_is_followed_left_and_gone_on_with(client: httpx.Client) -> None:
    """By Last-Event-ID, as browsers send it; the deltas together are the result's text."""
    place = client.post("/v1/jobs", json=JOB | {"stream": True}).headers["location"]
    first: list[Event] = []
    with client.stream("GET", f"{place}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for event in events(response.iter_lines()):
            first.append(event)
            if len(text(first)) > 40:
                break
    with client.stream("GET", f"{place}/events", headers={"Last-Event-ID": first[-1].event_id}) as response:
        rest = list(events(response.iter_lines()))
    assert [event.name for event in rest][-1] == "ended"
    assert text(first) + text(rest) == rest[-1].data["choices"][0]["text"]
    again = list(events(iter(client.get(f"{place}/events", params={"after": first[-1].event_id}).text.splitlines())))
    assert text(first) + text(again) == rest[-1].data["choices"][0]["text"]
    wrong = client.get(f"{place}/events", headers={"Last-Event-ID": "x"})
    assert (wrong.status_code, "no position" in wrong.text) == (400, True)


def test_a_cancelled_job_says_so_everywhere(client: httpx.Client) -> None:
    """As its status, as its result, and as the end of its events."""
    place = client.post("/v1/jobs", json=JOB | {"sampling": {"max_tokens": 1500, "ignore_eos": True}}).headers[
        "location"
    ]
    assert client.delete(place).json()["outcome"] == "cancelled"
    assert client.delete(place).json()["outcome"] == "already_cancelled"
    assert client.get(place).json()["state"] == "cancelled"
    result = client.get(f"{place}/result")
    assert (result.status_code, result.json()["error"]["code"]) == (499, "cancelled")
    assert client.get(f"{place}/events").status_code == 499


def test_an_idempotency_key_names_one_job(client: httpx.Client) -> None:
    """In the header or in the body; another body under it is refused, and so are two different keys."""
    header = {"Idempotency-Key": "one"}
    first = client.post("/v1/jobs", json=JOB, headers=header).json()
    assert client.post("/v1/jobs", json=JOB, headers=header).json() | {"duplicate": False} == first
    assert client.post("/v1/jobs", json=JOB | {"idempotency_key": "one"}).json()["id"] == first["id"]
    assert client.post("/v1/jobs", json=JOB | {"prompt": "other"}, headers=header).status_code == 400
    differing = client.post("/v1/jobs", json=JOB | {"idempotency_key": "two"}, headers=header)
    assert (differing.status_code, "give one of them" in differing.text) == (400, True)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (("GET", "/v1/jobs/none", None), 404, "job_not_found"),
        (("GET", "/v1/jobs/none/result", None), 404, "job_not_found"),
        (("GET", "/v1/jobs/none/events", None), 404, "job_not_found"),
        (("GET", "/v1/jobs/none/result?wait=-1", None), 400, "invalid_parameter"),
        (("POST", "/v1/jobs", b"{"), 400, "invalid_json"),
        (("POST", "/v1/jobs", b'{"model": "sim"}'), 400, "invalid_parameter"),
        (("POST", "/v1/jobs", b'{"model": "other", "prompt": "x"}'), 404, "model_not_found"),
        (("POST", "/v1/jobs", b'{"model": "sim", "prompt": "x", "webhook": "ftp://x"}'), 400, "invalid_parameter"),
        (("POST", "/v1/jobs", b'{"model": "sim", "prompt": "x", "lora": "y"}'), 400, "invalid_request"),
        (("POST", "/v1/jobs", b" " * (MAX_MESSAGE_BYTES + 1)), 413, "too_large"),
        (("GET", "/v1/nothing", None), 404, None),
        (("PUT", "/v1/jobs", b"{}"), 405, None),
    ],
)
def test_what_is_wrong_is_said_as_openai_says_it(
    client: httpx.Client, asked: tuple[str, str, bytes | None], status: int, code: str | None
) -> None:
    """One form of error for every route."""
    method, path, body = asked
    answer = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_body_without_a_length_is_limited_too(client: httpx.Client) -> None:
    """It is refused as soon as it is too large."""
    pieces = (b" " * 1_000_000 for _ in range(9))
    answer = client.post("/v1/jobs", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_without_keys_the_gateway_listens_on_this_machine_only() -> None:
    """Unless it asks its callers who they are."""
    run = CliRunner().invoke(build_app([]), ["gateway", "--host", "0.0.0.0"])  # noqa: S104 - to be refused
    assert isinstance(run.exception, InvalidRequest)
    assert "--require-keys" in str(run.exception)


def test_who_stops_waiting_for_a_result_gives_up_its_place(redis_url: str, tmp_path: Path) -> None:
    """At once, and not when its time is up; the job stays."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
        job = producer.submit(model="m", prompt="x").job_id
    with (
        running_gateway(redis_url, tmp_path, "--max-concurrent-requests", "1") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"/v1/jobs/{job}/result", params={"wait": 300}, timeout=httpx.Timeout(30, read=1))
        eventually(lambda: client.get("/v1/models").status_code == 200, what="there is room")
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
