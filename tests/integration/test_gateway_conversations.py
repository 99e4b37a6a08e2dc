"""Conversations through real gateways and real workers: any worker takes the next turn, and no two turns mix."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from openai import OpenAI
from typer.testing import CliRunner

from producer import JobState, Producer, keys
from producer.api_keys import Role
from producer.cli import build_app
from producer.errors import UnknownConversation
from tests.gateways import answers, running_gateway
from tests.running import FLEET, RunningFleet, simulated
from tests.waiting import eventually, free_port

SYSTEM = {"role": "system", "content": "Be brief."}
TURN: dict[str, Any] = {"model": "sim", "max_tokens": 6, "conversation_id": "c", "temperature": 0}
LONG: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True}


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """Two workers; each answers at 100 tokens a second."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.01, max_num_seqs=4)
    fleet.arguments = ["--engines-per-gpu", "2"]
    fleet.workers = 2
    with fleet:
        yield fleet


@pytest.fixture
def client(fleet: RunningFleet, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of its gateway."""
    with running_gateway(fleet.redis_url, tmp_path) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def user(text: str) -> dict[str, str]:
    """What somebody says."""
    return {"role": "user", "content": text}


def say(client: httpx.Client, *messages: dict[str, str], **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - the body's
    """The answer to the next turn."""
    response = client.post("/v1/chat/completions", json=TURN | {"messages": messages} | fields)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]  # JSON


def history(client: httpx.Client, conversation_id: str = "c") -> list[dict[str, str]]:
    """What was said."""
    response = client.get(f"/v1/conversations/{conversation_id}")
    assert response.status_code == 200, response.text
    return response.json()["messages"]  # type: ignore[no-any-return]  # JSON


def tokens(messages: list[dict[str, str]]) -> int:
    """As the simulated engine counts a prompt."""
    return sum(1 + len(message["content"].split()) for message in messages)


def worker_of(client: httpx.Client, answer: dict[str, Any]) -> str:
    """Who answered."""
    name: str = client.get(f"/v1/jobs/{answer['id'].removeprefix('chatcmpl-')}").json()["worker"]
    return name


def test_any_worker_takes_the_next_turn(client: httpx.Client, redis_url: str) -> None:
    """Each prompt is exactly what was said before, whoever answered that: the one that did is killed on the way."""
    workers: set[str] = set()
    said = [SYSTEM]
    for number in range(60):
        said.append(user(f"turn {number}"))
        answer = say(client, *([SYSTEM] if number == 0 else []), said[-1])
        assert answer["usage"]["prompt_tokens"] == tokens(said)
        said.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        workers.add(worker_of(client, answer))
        if len(workers) == 2 and number >= 3:
            break
        if number == 3:
            with Producer(redis_url) as producer:
                [process_id] = [one.process_id for one in producer.workers() if one.worker in workers]
            os.kill(process_id, signal.SIGKILL)
    assert len(workers) == 2
    assert history(client) == said


def test_the_official_client_takes_turns_streamed_and_not(client: httpx.Client) -> None:
    """By a parameter of its own; a job over HTTP takes the next one."""
    with OpenAI(base_url=str(client.base_url.join("/v1")), api_key="none", max_retries=0) as openai:
        asked: dict[str, Any] = {"model": "sim", "max_tokens": 6, "extra_body": {"conversation_id": "a/b c"}}
        whole = openai.chat.completions.create(messages=[user("one")], **asked).choices[0].message.content
        chunks = list(openai.chat.completions.create(messages=[user("two")], stream=True, **asked))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    job = {"model": "sim", "messages": [user("three")], "conversation_id": "a/b c", "sampling": {"max_tokens": 5}}
    place = client.post("/v1/jobs", json=job).headers["location"]
    result = client.get(f"{place}/result", params={"wait": 60}).json()
    said = [message["content"] for message in history(client, "a/b c")]
    assert said == ["one", whole, "two", streamed, "three", result["choices"][0]["text"]]
    assert result["usage"]["prompt_tokens"] == tokens(history(client, "a/b c")[:-1])


def test_a_gateway_that_is_killed_loses_no_answer(fleet: RunningFleet, client: httpx.Client, tmp_path: Path) -> None:
    """It was to hand over and to note the answer, which is stored by then; another gateway's next turn has it."""
    with Producer(fleet.redis_url) as producer, redis.Redis.from_url(fleet.redis_url) as server:
        with doomed_gateway(fleet.redis_url, tmp_path) as (address, process):
            body = TURN | {"messages": [user("one")], "max_tokens": 200, "ignore_eos": True}
            with httpx.Client(base_url=address, timeout=60) as other, pytest.raises(httpx.TransportError):
                asyncio.run(killed_while_it_waits(other, body, producer, process))
        job_id = producer.conversation("c").open_job_id
        assert job_id is not None
        eventually(lambda: producer.status(job_id).state is JobState.SUCCEEDED, what="the answer is stored")
        stored = server.hgetall(keys.conversation(None, "c"))
        assert b"1.answer" not in stored
        answer = say(client, user("two"))
        first = producer.result(job_id)
    said = history(client)
    assert said[:2] == [user("one"), {"role": "assistant", "content": first.text}]
    assert answer["usage"]["prompt_tokens"] == tokens(said[:3])


async def killed_while_it_waits(
    client: httpx.Client, body: dict[str, Any], producer: Producer, process: "subprocess.Popen[bytes]"
) -> None:
    """Ask, and kill the gateway when the job is in a worker."""
    asking = asyncio.create_task(asyncio.to_thread(client.post, "/v1/chat/completions", json=body))

    def is_running() -> bool:
        try:
            job_id = producer.conversation("c").open_job_id
        except UnknownConversation:
            return False
        return job_id is not None and producer.status(job_id).state is JobState.RUNNING

    await asyncio.to_thread(eventually, is_running, what="a worker has the job")
    process.kill()
    await asking


@contextmanager
def doomed_gateway(redis_url: str, folder: Path) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """A gateway that somebody will kill."""
    port = free_port()
    with (folder / "doomed.log").open("wb") as log:
        command = [*FLEET, "gateway", "--port", str(port)]
        process = subprocess.Popen(command, env=os.environ | {"FLEET_REDIS_URL": redis_url}, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/health"), what="the gateway answers")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


async def test_racing_turns_are_ordered(fleet: RunningFleet, client: httpx.Client, tmp_path: Path) -> None:
    """At two gateways at once: each was asked after exactly the turns that it stands behind."""
    folder = tmp_path / "second"
    folder.mkdir()
    with running_gateway(fleet.redis_url, folder) as second:
        async with httpx.AsyncClient(timeout=120) as racing:
            bodies = [TURN | {"messages": [user(f"turn {number}")]} for number in range(12)]
            addresses = (str(client.base_url).rstrip("/"), second)
            racers = [
                racing.post(f"{addresses[at % 2]}/v1/chat/completions", json=body) for at, body in enumerate(bodies)
            ]
            answered = [response.json() for response in await asyncio.gather(*racers)]
    said = history(client)
    assert sorted(message["content"] for message in said[::2]) == sorted(f"turn {number}" for number in range(12))
    by_turn = dict(zip((body["messages"][0]["content"] for body in bodies), answered, strict=True))
    for at in range(0, len(said), 2):
        answer = by_turn[said[at]["content"]]
        assert answer["choices"][0]["message"]["content"] == said[at + 1]["content"]
        assert answer["usage"]["prompt_tokens"] == tokens(said[: at + 1])


def test_a_turn_that_waited_long_enough_is_told_so(fleet: RunningFleet, tmp_path: Path) -> None:
    """And can be sent again; a client that sends the same turn again waits for nothing."""
    with (
        running_gateway(fleet.redis_url, tmp_path, "--conversation-wait-seconds", "0.1") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        job = {"model": "sim", "messages": [user("one")], "conversation_id": "c", "sampling": LONG}
        same = {"Idempotency-Key": "same"}
        first = client.post("/v1/jobs", json=job, headers=same).json()
        refused = client.post("/v1/chat/completions", json=TURN | {"messages": [user("two")]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "turn_in_progress")
        assert client.post("/v1/jobs", json=job, headers=same).json() == first | {"duplicate": True}
        shown = client.get("/v1/conversations/c").json()
        assert (shown["job_in_progress"], shown["messages"]) == (first["id"], [user("one")])
        assert client.delete(f"/v1/jobs/{first['id']}").json()["outcome"] == "cancelled"
        assert client.get("/v1/conversations/c").status_code == 404
        say(client, user("two"))
        assert history(client)[0] == user("two")


def test_who_leaves_has_not_said_anything(client: httpx.Client, fleet: RunningFleet) -> None:
    """The job of a turn that nobody waits for any more is cancelled, and its turn is gone."""
    say(client, user("one"))
    with client.stream(
        "POST", "/v1/chat/completions", json=TURN | LONG | {"messages": [user("two")], "stream": True}
    ) as response:
        assert response.status_code == 200
    with Producer(fleet.redis_url) as producer:
        eventually(lambda: producer.conversation("c").open_job_id is None, what="the turn is settled")
    assert [message["content"] for message in history(client)][0::2] == ["one"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/jobs"])
def test_who_leaves_while_its_turn_waits_gives_up_its_place(
    client: httpx.Client, fleet: RunningFleet, path: str
) -> None:
    """While the turn before it runs on: nothing of it is queued."""
    line = keys.line(keys.conversation(None, "c"))
    job = {"model": "sim", "messages": [user("one")], "conversation_id": "c", "sampling": LONG | {"max_tokens": 5000}}
    first = client.post("/v1/jobs", json=job).json()["id"]
    second = {"model": "sim", "messages": [user("two")], "conversation_id": "c"}
    with redis.Redis.from_url(fleet.redis_url) as server:
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json=second, timeout=2)
        assert client.get("/v1/conversations/c").json()["job_in_progress"] == first
        eventually(lambda: server.zcard(line) == 0, seconds=20, what="it left the line")
        assert client.get(f"/v1/jobs/{first}").json()["state"] == "running"
        assert len(server.keys(keys.job_record("*"))) == 1
    client.delete(f"/v1/jobs/{first}")


def test_a_conversation_does_not_outgrow_its_bound(fleet: RunningFleet, tmp_path: Path) -> None:
    """By the engine's own counts; the system turn is in every prompt."""
    with (
        running_gateway(fleet.redis_url, tmp_path, "--conversation-max-tokens", "120") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for number in range(12):
            answer = say(client, *([SYSTEM] if number == 0 else []), user(f"turn {number}, said in a few words"))
            assert answer["usage"]["total_tokens"] <= 120
            assert history(client)[0] == SYSTEM
        said = history(client)
        assert 3 <= len(said) < 2 * 12
        assert said[-2]["content"].startswith("turn 11")
        # The last answer's role is in no count before the next turn.
        assert client.get("/v1/conversations/c").json()["tokens"] == tokens(said) - 1


def test_a_tenant_sees_its_own_conversations_alone(fleet: RunningFleet, tmp_path: Path) -> None:
    """To another one they do not exist, in no way to ask; an operator names the tenant."""
    with Producer(fleet.redis_url) as producer:
        given = [producer.create_key(name) for name in ("acme", "other")]
        given.append(producer.create_key("ops", role=Role.OPERATOR))
    with running_gateway(fleet.redis_url, tmp_path, "--require-keys") as address:
        acme, other, operator = (
            httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) for key in given
        )
        with acme, other, operator:
            say(acme, user("ours"))
            for path in ("/v1/conversations/c", "/v1/conversations/c?tenant=acme"):
                for method in ("GET", "DELETE"):
                    answer = other.request(method, path)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found")
            assert operator.get("/v1/conversations/c").status_code == 404
            assert operator.get("/v1/conversations/c?tenant=acme").json()["tenant"] == "acme"
            say(other, user("theirs"))
            assert [history(client)[0]["content"] for client in (acme, other)] == ["ours", "theirs"]
            refused = other.post("/v1/jobs", json={"model": "sim", "messages": [user("x")], "tenant": "acme"})
            assert refused.status_code == 403
            assert acme.delete("/v1/conversations/c").json()["deleted"] is True
            assert acme.get("/v1/conversations/c").status_code == 404
            assert history(other)[0]["content"] == "theirs"


def test_the_command_line_shows_and_forgets_a_conversation(client: httpx.Client, fleet: RunningFleet) -> None:
    """As a reader would want it."""
    answer = say(client, SYSTEM, user("one"))["choices"][0]["message"]["content"]
    run = CliRunner(env={"FLEET_REDIS_URL": fleet.redis_url})
    shown = run.invoke(build_app([]), ["conversation", "show", "c"])
    assert shown.output == f"system: Be brief.\nuser: one\nassistant: {answer}\n"
    assert run.invoke(build_app([]), ["conversation", "forget", "c"]).exit_code == 0
    for command in ("show", "forget"):
        assert isinstance(run.invoke(build_app([]), ["conversation", command, "c"]).exception, UnknownConversation)


def test_the_next_turn_goes_to_the_worker_that_answered_the_last_while_it_has_room(
    client: httpx.Client, redis_url: str
) -> None:
    """Its engine has the conversation in its cache. When it is gone, another one answers, and then has it."""

    def answerer(**fields: Any) -> str:  # noqa: ANN401 - the body's
        job_id = say(client, user("more"), **fields)["id"].removeprefix("chatcmpl-")
        return str(client.get(f"/v1/jobs/{job_id}").json()["worker"])

    with Producer(redis_url) as producer:
        eventually(lambda: all(one.consumer for one in producer.workers()), what="both can be called")
        names = {one.worker: one.process_id for one in producer.workers()}
        turns = [answerer() for _ in range(11)]
        # Unasked, workers look once a second, and may find a turn before the one that was woken for it.
        stays = sum(one == next_one for one, next_one in pairwise(turns))
        assert stays >= 6, f"though the other one waits for longer each time: {turns}"
        os.kill(names[turns[-1]], signal.SIGKILL)
        other = answerer()
        assert {turns[-1], other} == set(names)
        assert answerer() == other
        busy = [
            producer.submit(model="sim", prompt="x", tenant=str(number), sampling=LONG)
            for number in range(2 * producer.workers()[0].slots)
        ]
        eventually(
            lambda: len(producer.workers()) == 2 and all(one.is_ready for one in producer.workers()),
            seconds=60,
            what="the killed one is back",
        )
        assert answerer(priority="interactive") in names, "a turn is answered whoever has room"
        for job in busy:
            producer.cancel(job)
