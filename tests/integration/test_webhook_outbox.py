"""The outbox's scripts on a real server: noted with the job, found at its end, claimed by one, and never lost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from producer import (
    AsyncProducer,
    InvalidRequest,
    JobState,
    OutboxFull,
    Producer,
    UnknownWebhook,
    WebhookKind,
    WebhookState,
    keys,
    webhook_note,
)
from producer.script import ScriptRun
from producer.webhooks.outbox import (
    MOST_SWEPT,
    ClaimedEvent,
    Looked,
    claim_run,
    look_run,
    read_claims,
    read_look,
    settle_run,
)
from producer.webhooks.payload import MOST_RESULT_BYTES, payload_of
from producer.webhooks.retrying import DEAD_SECONDS, Decision, Verdict
from tests.burying import Undertaker
from tests.waiting import eventually

URL = "https://example.org/hook"
JOB: dict[str, Any] = {"model": "m", "prompt": "x", "webhook": URL}


@dataclass
class Outbox:
    """Its scripts, and a producer whose tenant ``acme`` has a secret."""

    client: "redis.Redis"
    producer: Producer

    def run(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever it replies
        """Run one."""
        return self.client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)

    def look(self, most_oldest: int = 64) -> Looked:
        """Look once."""
        return read_look(self.run(look_run(most_oldest)))

    def claim(
        self, most: int = 16, lease_seconds: float = 60.0, at_one: int = 16, running: Mapping[str, int] | None = None
    ) -> list[ClaimedEvent]:
        """Claim what is due."""
        return read_claims(self.run(claim_run(most, lease_seconds, at_one, running or {})))[0]

    def settle(self, event: ClaimedEvent, verdict: Verdict, delay_seconds: float = 0.0) -> int:
        """Note what came of an attempt."""
        return int(self.run(settle_run(event, Decision(verdict, delay_seconds), "HTTP 503", payload_of(event).kept)))

    def submit(self, **fields: Any) -> str:  # noqa: ANN401 - a request's
        """A job of the tenant."""
        return self.producer.submit(**JOB | {"tenant": "acme"} | fields).job_id

    def answer(self, job_id: str, text: str = "an answer") -> None:
        """End a job as a worker does."""
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        choice = {"index": 0, "text": text, "token_count": 2, "finish_reason": "stop"}
        result = {"id": job_id, "model": "m", "choices": [choice], "usage": usage, "worker": "w@h"}
        meta = {"status": "SUCCESS", "result": result | {"timings": {"total_seconds": 1.0}}, "task_id": job_id}
        self.client.set(keys.result(job_id), json.dumps(meta | {"date_done": "2026-11-26T10:00:00.5+00:00"}))

    def written(self) -> set[bytes]:
        """Every key of webhooks but the secrets and the numbers."""
        names = set(self.client.scan_iter("fleet:webhook*"))
        return names - {b"fleet:webhooks:secrets", b"fleet:webhooks:places"}


@pytest.fixture
def outbox(redis_url: str) -> Iterator[Outbox]:
    """An empty one."""
    with redis.Redis.from_url(redis_url) as client, Producer(redis_url) as producer:
        producer.declare_model("m")
        producer.create_webhook_secret("acme")
        yield Outbox(client, producer)


def told(event: ClaimedEvent) -> dict[str, Any]:
    """What its receiver would hear."""
    content: dict[str, Any] = json.loads(payload_of(event).body)
    return content


def test_a_webhook_is_noted_if_and_only_if_its_job_is_queued(outbox: Outbox) -> None:
    """Not for one that is refused, nor a second time for one idempotency key."""
    outbox.submit(webhook=None)
    with pytest.raises(InvalidRequest, match=r"tenant 'other' has no secret .* fleet webhooks secret create other"):
        outbox.submit(tenant="other")
    with pytest.raises(InvalidRequest, match="jobs without a tenant have no secret"):
        outbox.submit(tenant=None)
    outbox.producer.set_queue_limit("m", 1)
    refused = outbox.producer.submit_many([JOB | {"tenant": "acme"}, JOB | {"model": "unknown", "tenant": "acme"}])
    assert [outcome.submission for outcome in refused] == [None, None]
    outbox.producer.set_queue_limit("m", None)
    assert (outbox.written(), outbox.producer.webhooks()) == (set(), [])

    job_id = outbox.submit(idempotency_key="one")
    assert outbox.submit(idempotency_key="one") == job_id
    with pytest.raises(InvalidRequest, match="asked something else"):
        outbox.submit(idempotency_key="one", webhook=URL + "/other")
    [event] = outbox.producer.webhooks()
    assert (event.job_id, event.url, event.tenant, event.kind) == (job_id, URL, "acme", WebhookKind.AWAITING)
    assert outbox.producer.status(job_id).state is JobState.QUEUED


def test_a_push_that_is_refused_leaves_no_note(outbox: Outbox) -> None:
    """The lane is of a foreign type: neither job nor webhook."""
    outbox.client.set("fleet.m\x06\x163", "foreign")
    outbox.producer.create_webhook_secret()
    with pytest.raises(Exception, match="WRONGTYPE"):
        outbox.producer.submit(**JOB)
    assert outbox.producer.webhooks() == []


def test_no_job_is_queued_whose_webhook_can_not_be_noted(outbox: Outbox) -> None:
    """The outbox is of a foreign type: neither."""
    outbox.client.set("fleet:webhooks:awaiting", "foreign")
    with pytest.raises(Exception, match="WRONGTYPE"):
        outbox.submit()
    assert outbox.client.llen("fleet.m\x06\x164") == outbox.client.hlen("fleet:waiting:m") == 0


def test_a_full_outbox_takes_no_more(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound for all of them; jobs without a webhook are taken, and ``map`` would wait."""
    monkeypatch.setattr(webhook_note, "MOST_PENDING", 2)
    first = outbox.submit()
    outbox.submit()
    outbox.answer(first)
    assert outbox.look() == Looked(1, 1, is_due=True)
    with pytest.raises(OutboxFull, match="2 webhooks wait to be told, and at most 2 may: does anybody deliver them"):
        outbox.submit()
    outbox.submit(webhook=None)
    [event] = outbox.claim()
    outbox.settle(event, Verdict.TOLD)
    outbox.submit()


def test_an_answered_job_is_told_with_its_result_once(outbox: Outbox) -> None:
    """And nothing is left of it."""
    job_id = outbox.submit()
    assert outbox.look() == Looked(0, 1, is_due=False)
    outbox.answer(job_id)
    assert outbox.look() == Looked(1, 0, is_due=True)
    [event] = outbox.claim()
    assert outbox.claim() == []
    content = told(event)
    assert content["type"] == "job.succeeded"
    assert content["timestamp"] == "2026-11-26T10:00:00.500000Z"
    facts = {"id": job_id, "state": "succeeded", "model": "m", "tenant": "acme", "failure": None}
    assert content["data"] | facts == content["data"]
    assert content["data"]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0}
    assert content["data"]["result"]["choices"][0]["text"] == "an answer"
    assert event.event_id.startswith(f"msg_{job_id}_")
    assert [one.secret for one in event.secrets] == [one.secret for one in outbox.producer.webhook_secrets()["acme"]]
    assert outbox.settle(event, Verdict.TOLD) == 1
    assert outbox.written() == set()


def test_a_large_result_is_left_out_and_a_lost_surrogate_is_not(outbox: Outbox) -> None:
    """The receiver fetches a large one; text that strict JSON refuses is escaped."""
    large, odd = outbox.submit(), outbox.submit()
    outbox.answer(large, "x" * (MOST_RESULT_BYTES + 1))
    outbox.answer(odd, "half \ud83d")
    assert outbox.look().found == 2
    by_job = {event.job_id: told(event)["data"] for event in outbox.claim()}
    assert (by_job[large]["state"], by_job[large]["result"]) == ("succeeded", None)
    assert by_job[large]["usage"]["completion_tokens"] == 2
    assert by_job[odd]["result"]["choices"][0]["text"] == "half \ud83d"


def test_cancelled_and_poisoned_and_lost_jobs_are_told_too(outbox: Outbox) -> None:
    """A cancel writes its own result, a dead letter its own, and of a lost job there is nothing at all."""
    poisoned = outbox.submit()
    Undertaker(outbox.client).poison()
    cancelled, lost = outbox.submit(), outbox.submit()
    outbox.producer.cancel(cancelled)
    outbox.client.delete(keys.job_record(lost))
    assert outbox.look() == Looked(3, 0, is_due=True)
    ends = {event.job_id: told(event) for event in outbox.claim()}
    assert {job: (end["type"], end["data"]["failure"]["code"]) for job, end in ends.items()} == {
        poisoned: ("job.failed", "poisoned"),
        cancelled: ("job.cancelled", "cancelled"),
        lost: ("job.failed", "internal"),
    }
    assert ends[cancelled]["data"]["model"] == "m"
    assert "nothing is known of job" in ends[lost]["data"]["failure"]["message"]


def test_running_and_retried_jobs_have_not_ended(outbox: Outbox) -> None:
    """Celery stores those states under the result's name too."""
    job_id = outbox.submit()
    for status in ("STARTED", "RETRY", "PENDING"):
        outbox.client.set(keys.result(job_id), json.dumps({"status": status, "result": None}))
        assert outbox.look().found == 0


def test_a_job_that_redis_has_lost_is_found_though_not_each_time(outbox: Outbox) -> None:
    """Whenever it was lost."""
    ids = outbox_of_many(outbox, 200)
    assert outbox.look().found == 0
    outbox.client.delete(keys.job_record(ids[100]))
    eventually(lambda: outbox.look().is_due, seconds=30, what="it is found")
    [event] = outbox.claim()
    assert event.job_id == ids[100]


def outbox_of_many(outbox: Outbox, count: int) -> list[str]:
    """The ids of so many jobs with webhooks, the oldest first."""
    ids = [outcome.unwrap().job_id for outcome in outbox.producer.submit_many([JOB | {"tenant": "acme"}] * count)]
    assert {event.job_id for event in outbox.producer.webhooks(limit=count + 100)} >= set(ids)
    return ids


def test_a_late_job_among_many_that_wait_is_found_in_time(outbox: Outbox) -> None:
    """Though each look takes a bounded number, and the oldest do not end."""
    count = MOST_SWEPT + 500
    ids = outbox_of_many(outbox, count)
    for place in (count - 1, count - 100, count // 2):
        outbox.answer(ids[place])
        outbox.look()
        eventually(lambda: outbox.look().is_due, what="the late one is found")
        [event] = outbox.claim()
        assert event.job_id == ids[place]
        outbox.settle(event, Verdict.TOLD)


def test_a_sweep_goes_on_after_the_clock_was_set_back(outbox: Outbox) -> None:
    """The last one seems to have been in the future."""
    ids = [outbox.submit() for _ in range(3)]
    ids += outbox_of_many(outbox, 200)
    outbox.client.hset("fleet:webhooks:places", "swept_at", "99999999999.0")
    outbox.answer(ids[100])
    eventually(lambda: outbox.look(1).is_due, what="it is found")


def test_an_attempt_that_is_killed_is_made_by_another(outbox: Outbox) -> None:
    """When its lease has ended, under the same id; what the first one says later changes nothing, unless it told."""
    outbox.answer(outbox.submit())
    outbox.look()
    [lost] = outbox.claim(lease_seconds=0.05)
    again: list[ClaimedEvent] = []
    eventually(lambda: again.extend(outbox.claim()) or again, what="the lease ends")
    assert (again[0].event_id, again[0].attempt) == (lost.event_id, 2)
    assert outbox.settle(lost, Verdict.DEAD) == 0
    assert outbox.claim() == [], "the second attempt's lease holds"
    assert outbox.settle(lost, Verdict.TOLD) == 1
    assert outbox.settle(again[0], Verdict.LATER) == 0, "it was told: nothing comes back"
    assert outbox.written() == set()


def test_a_retry_waits_for_its_time_and_outlives_the_result(outbox: Outbox) -> None:
    """Then it is told without it."""
    job_id = outbox.submit()
    outbox.answer(job_id)
    outbox.look()
    [event] = outbox.claim()
    assert outbox.settle(event, Verdict.LATER, 3600) == 1
    assert (outbox.look().is_due, outbox.claim()) == (False, [])
    [waiting] = outbox.producer.webhooks()
    assert (waiting.kind, waiting.attempts, waiting.wrong) == (WebhookKind.DUE, 1, "HTTP 503")
    assert waiting.moment == pytest.approx(outbox.client.time()[0] + 3600, abs=30)
    outbox.client.delete(keys.result(job_id), keys.job_record(job_id))
    assert outbox.producer.replay_webhook(event.event_id)
    [again] = outbox.claim()
    assert told(again) == told(event) | {"data": told(event)["data"] | {"result": None}}


def test_a_dead_event_is_kept_for_a_week_and_replayed(outbox: Outbox) -> None:
    """With all its attempts before it."""
    outbox.answer(outbox.submit())
    outbox.look()
    [event] = outbox.claim()
    assert outbox.settle(event, Verdict.DEAD) == 1
    assert outbox.producer.webhooks() == []
    [dead] = outbox.producer.webhooks(WebhookState.DEAD)
    assert (dead.event_id, dead.kind, dead.wrong) == (event.event_id, WebhookKind.DEAD, "HTTP 503")
    record = f"fleet:webhook:{event.event_id}"
    assert DEAD_SECONDS - 60 < outbox.client.ttl(record) <= DEAD_SECONDS
    assert outbox.producer.replay_webhook(event.event_id) is True
    assert outbox.client.ttl(record) == -1
    [again] = outbox.claim()
    assert (again.event_id, again.attempt, again.attempts_before) == (event.event_id, 2, 1)
    assert outbox.producer.replay_webhook(event.event_id) is False, "it is being told"
    outbox.settle(again, Verdict.DEAD)
    outbox.client.zadd("fleet:webhooks:dead", {event.event_id: outbox.client.time()[0] - DEAD_SECONDS - 1})
    outbox.look()
    assert outbox.written() == set()
    with pytest.raises(UnknownWebhook, match="it was told, its job has not ended"):
        outbox.producer.replay_webhook(event.event_id)


async def test_async_producers_list_and_replay_too(outbox: Outbox, redis_url: str) -> None:
    """The same outbox."""
    outbox.answer(outbox.submit())
    outbox.look()
    [event] = outbox.claim()
    outbox.settle(event, Verdict.DEAD)
    async with AsyncProducer(redis_url) as producer:
        assert [one.event_id for one in await producer.webhooks(WebhookState.DEAD)] == [event.event_id]
        assert await producer.replay_webhook(event.event_id)
        assert [one.kind for one in await producer.webhooks()] == [WebhookKind.DUE]


def test_a_job_that_is_queued_again_is_told_again(outbox: Outbox) -> None:
    """Its dead letter was replayed: its next end is another event; the first, if it was never told, is not told."""
    job_id = outbox.submit()
    letter = Undertaker(outbox.client).poison()
    outbox.look()
    outbox.producer.replay_dead_letter(letter)
    assert outbox.claim() == []
    assert [event.kind for event in outbox.producer.webhooks()] == [WebhookKind.AWAITING]
    outbox.answer(job_id)
    outbox.look()
    [event] = outbox.claim()
    assert (told(event)["type"], event.event_id) == ("job.succeeded", f"msg_{job_id}_2")


def test_a_slow_receiver_takes_nobody_elses_turn(outbox: Outbox) -> None:
    """Of one receiver so many at a time are claimed, and its backlog does not hide what is behind it."""
    slow = [outbox.submit(webhook="http://slow.example:81/a") for _ in range(250)]
    for job_id in slow:
        outbox.answer(job_id)
    assert outbox.look(500).found == 250
    fast = outbox.submit(webhook="http://fast.example/b")
    outbox.answer(fast)
    assert outbox.look(500).found == 1
    first = outbox.claim(16, at_one=4, running={"slow.example:81": 1})
    assert [event.receiver for event in first] == ["slow.example:81"] * 3
    busy = {"slow.example:81": 4}
    second = outbox.run(claim_run(16, 60, 4, busy))
    assert [event.job_id for event in read_claims(second)[0]] == [fast]
    claimed, is_more = read_claims(outbox.run(claim_run(16, 60, 4, busy)))
    assert (claimed, is_more) == ([], True)
    assert len(outbox.claim(16, at_one=16)) == 16, "some are left for the next free place"
    assert len(outbox.producer.webhooks(limit=1000)) == 251


def test_the_list_pages_over_what_is_due_and_what_is_awaited(outbox: Outbox) -> None:
    """Each once."""
    ids = [outbox.submit() for _ in range(7)]
    for job_id in ids[:3]:
        outbox.answer(job_id)
    outbox.look()
    pages = [outbox.producer.webhooks(limit=2, offset=offset) for offset in range(0, 8, 2)]
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert {event.job_id for page in pages for event in page} == set(ids)
    assert [event.kind for page in pages for event in page] == [WebhookKind.DUE] * 3 + [WebhookKind.AWAITING] * 4


def test_secrets_are_made_once_rotated_and_deleted(outbox: Outbox) -> None:
    """The old one signs for a while; a tenant's name may hold anything."""
    name = "a b/ü"
    first = outbox.producer.create_webhook_secret(name)
    with pytest.raises(InvalidRequest, match="there is a secret already"):
        outbox.producer.create_webhook_secret(name)
    with pytest.raises(InvalidRequest, match="no secret to rotate"):
        outbox.producer.rotate_webhook_secret("nobody")
    second = outbox.producer.rotate_webhook_secret(name, keep_seconds=1000)
    assert [one.secret for one in outbox.producer.webhook_secrets()[name]] == [second, first]
    third = outbox.producer.rotate_webhook_secret(name, keep_seconds=0)
    assert [one.secret for one in outbox.producer.webhook_secrets()[name]] == [third]
    for _ in range(8):
        outbox.producer.rotate_webhook_secret(name)
    assert len(outbox.producer.webhook_secrets()[name]) == 5
    assert outbox.producer.delete_webhook_secret(name)
    assert not outbox.producer.delete_webhook_secret(name)
    assert list(outbox.producer.webhook_secrets()) == ["acme"]
