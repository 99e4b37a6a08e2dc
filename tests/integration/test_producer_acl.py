"""The Redis user of apps that submit: all that a producer is for, and nothing that a stolen password could use."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import AsyncProducer, FleetUnreachable, InferenceFailed, Producer
from tests.acl_server import Guarded, fleet, guarded_server
from tests.running import RunningFleet, simulated

SHORT: dict[str, Any] = {"model": "sim", "prompt": "Once upon a time, " * 80, "sampling": {"max_tokens": 5}}
SLOW: dict[str, Any] = SHORT | {"metadata": {"simulate": "slow:3"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guarded]:
    """With what ``make_secrets.sh`` made."""
    with guarded_server(tmp_path) as server:
        yield server


@pytest.fixture
def worker(server: Guarded, tmp_path: Path) -> Iterator[RunningFleet]:
    """One that runs two jobs at a time."""
    with simulated(server.url("worker"), tmp_path, max_num_seqs=2) as running:
        yield running


def test_an_app_can_do_all_that_a_producer_is_for(server: Guarded, worker: RunningFleet) -> None:  # noqa: ARG001 - it answers
    """Jobs of every kind, in lanes and flows; idempotency, conversations, streams, webhooks, places, cancellation."""
    fleet(server, "tenants", "set", "acme", "--weight", "2", "--max-waiting-jobs", "50")
    fleet(server, "queues", "limit", "sim", "--max-waiting-jobs", "100")
    fleet(server, "models", "alias", "other", "sim")
    fleet(server, "webhooks", "secret", "create", "acme")
    later = datetime.now(UTC) + timedelta(minutes=5)
    with Producer(server.url("producer")) as producer:
        kinds = [
            SHORT,
            SHORT | {"model": "other"},
            SHORT | {"tenant": "acme", "webhook": "https://example.org/hook"},
            SHORT | {"priority": "interactive", "deadline": later},
            SHORT | {"prompt_cache_key": "p", "tenant": "acme", "idempotency_key": "k"},
        ]
        jobs = [producer.submit(**kind) for kind in kinds]
        assert producer.submit(**kinds[-1]).job_id == jobs[-1].job_id
        assert [producer.result(job, 60).usage.completion_tokens for job in jobs] == [5] * len(kinds)
        for said in ("Why?", "And then?"):
            turn = {"model": "sim", "messages": [{"role": "user", "content": said}], "conversation_id": "c"}
            assert producer.result(producer.submit(**turn), 60).usage.completion_tokens
        assert len(producer.conversation("c").messages) == 4
        assert producer.forget_conversation("c")
        streamed = producer.submit(**SHORT | {"stream": True})
        assert list(producer.stream(streamed))
        assert all(outcome.result for outcome in producer.map([SHORT] * 5, window=2))
        running, waiting = [producer.submit(**SLOW | {"tenant": "acme"}) for _ in range(4)][::3]
        assert producer.status(waiting.job_id).state
        for job in (running, waiting):
            assert producer.cancel(job)
            with pytest.raises(InferenceFailed):
                producer.result(job, 60)
        assert set(producer.models()) == {"sim"}
        assert producer.workers()
    assert server.refusals() == []


async def test_an_async_app_can_too(server: Guarded, worker: RunningFleet) -> None:  # noqa: ARG001 - it answers
    """Over its own connections."""
    async with AsyncProducer(server.url("producer")) as producer:
        job = await producer.submit(**SHORT | {"stream": True})
        assert [event async for event in producer.stream(job)]
        assert (await producer.result(job, 60)).usage.completion_tokens == 5
    assert server.refusals() == []


def test_what_is_an_operators_is_refused_with_a_clear_error(server: Guarded) -> None:
    """The producer's own methods say what happened; nothing has changed."""
    with Producer(server.url("producer")) as producer:
        for refused in (
            lambda: producer.declare_model("m"),
            lambda: producer.forget_model("m"),
            lambda: producer.set_alias("a", "m"),
            lambda: producer.set_queue_limit("m", 0),
            lambda: producer.set_tenant("acme", weight=1000.0),
            producer.dead_letters,
            producer.purge_all_dead_letters,
            producer.api_keys,
            producer.jobs,
            producer.queues,
        ):
            with pytest.raises(FleetUnreachable, match=r"permission"):
                refused()


READ_THE_LANE = "return redis.call('LRANGE', 'fleet.sim', 0, -1)"
TAKEN = [
    ("LRANGE", "fleet.sim", 0, -1),
    ("LINDEX", "fleet.sim", -1),
    ("RPOP", "fleet.sim"),
    ("LMOVE", "fleet.sim", "fleet.mine", "LEFT", "LEFT"),
    ("EVAL", READ_THE_LANE, 1, "fleet.sim"),
    ("EVAL", READ_THE_LANE, 0),
    ("HGETALL", "fleet:waiting:sim"),
    ("HGETALL", "fleet:leased:sim"),
    ("ZRANGE", "fleet:jobs", 0, -1),
    ("HGETALL", "fleet:keys"),
    ("HSET", "fleet:keys", "digest", "{}"),
    ("HGETALL", "fleet:webhooks:secrets"),
    ("ZRANGE", "fleet:webhooks:awaiting", 0, -1),
    ("HGETALL", "fleet:dead"),
    ("DEL", "fleet:models"),
    ("HSET", "fleet:limits", "sim", "0"),
    ("HSET", "fleet:tenants", "acme", "1000 9"),
    ("XADD", "fleet:stream:x", "*", "said", "a lie"),
    ("LPUSH", "fleet:suspects:sim", "3\nx"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("INFO",),
    ("CONFIG", "GET", "*"),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("FLUSHALL",),
    ("SUBSCRIBE", "/0.celery.pidbox"),
    ("PUBLISH", "/0.celery.pidbox", "{}"),
    ("PSUBSCRIBE", "*"),
]


@pytest.mark.parametrize("command", TAKEN, ids=lambda command: " ".join(map(str, command[:2])))
def test_a_stolen_password_takes_nothing_out(server: Guarded, command: tuple[str, ...]) -> None:
    """Neither waiting prompts, nor other apps' jobs, nor secrets, nor a word to the workers themselves."""
    refusal = pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permission|ACL failure")
    with server.client("producer") as client, refusal:
        client.execute_command(*command)


def test_what_a_stolen_password_can_do(server: Guarded, worker: RunningFleet) -> None:  # noqa: ARG001 - it answers
    """As SECURITY.md has it: a job in any tenant's name; and of a job whose id it knows, read, cancel, forge."""
    with Producer(server.url("gateway")) as gateway, Producer(server.url("producer")) as thief:
        forged = thief.submit(**SHORT | {"tenant": "acme"})
        assert thief.result(forged, 60).usage.completion_tokens == 5
        others = gateway.submit(**SHORT)
        assert gateway.result(others, 60).text == thief.result(others.job_id, 60).text
        victim = gateway.submit(**SLOW)
        assert thief.cancel(victim.job_id)
        with server.client("producer") as client:
            answer = json.loads(client.get(f"celery-task-meta-{others.job_id}") or b"{}")
            assert client.set(f"celery-task-meta-{others.job_id}", json.dumps(answer | {"result": {}}))
