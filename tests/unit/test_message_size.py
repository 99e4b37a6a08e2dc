"""Messages that are too large to be read: refused in Redis, answered by whoever claims them."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import Celery

from config.settings import WorkerSettings
from producer import keys
from producer.contract import MAX_MESSAGE_BYTES, MAX_PROMPT_BYTES, FailureCode, GenerationRequest
from producer.message import new_job, task_message
from tests.deliveries import job_message
from tests.leasing import MODEL, POLICY, FlowJob, LeaseQueue, raws
from workers.transport import drain_policy
from workers.transport.arrivals import Arrival, Fate, Rules, judge, parse
from workers.transport.claimed import ClaimedMessage
from workers.transport.lease_store import Screening

MOST_BYTES = 4_096
RULES = Rules(f"fleet.{MODEL}", max_deliveries=3, server_seconds=0.0, offset_seconds=0.0)


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue whose workers read small messages alone."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue.with_policy(replace(POLICY, drain=replace(POLICY.drain, max_message_bytes=MOST_BYTES)))


def large(job_id: str = "j") -> bytes:
    """A message of more than ``MOST_BYTES``, as the producer writes them."""
    message = json.loads(job_message(job_id))
    body = json.loads(message["body"])
    body[0][0]["prompt"] = 'say \\"correlation_id\\": "victim", "correlation_id": "victim"' * 200
    return json.dumps(message | {"body": json.dumps(body)}).encode()


def judged(message: ClaimedMessage) -> Arrival:
    """What becomes of it."""
    return judge(message, parse(message), (Screening.RUN, ""), RULES)


def test_a_message_that_is_too_large_is_answered_unread(queue: LeaseQueue) -> None:
    """Neither its worker nor Redis keeps it: what is leased in its place names the job and the size."""
    message = large()
    queue.push(message)
    [claimed] = queue.store().claim(8, held=0).messages
    assert len(claimed.raw) < 1_000
    arrival = judged(claimed)
    assert (arrival.fate, arrival.held.job_id) == (Fate.DELIVER, "j")
    assert arrival.held.verdict is not None
    assert arrival.held.verdict.code is FailureCode.INVALID_REQUEST
    assert f"{len(message):,} bytes" in arrival.held.verdict.message
    assert queue.client.memory_usage(queue.keys.leased) < 2_000


@pytest.mark.parametrize(
    "spoilt",
    [
        b"x" * (MOST_BYTES + 1),
        b'{"correlation_id": 5' + b" " * MOST_BYTES,
        b'"correlation_id": "' + b"\xff" * MOST_BYTES,
        b'{"a": "' + b"\x00" * MOST_BYTES + b'", "correlation_id": "\xff\xfe"}',
    ],
)
def test_one_that_names_no_job_is_a_dead_letter_without_its_text(queue: LeaseQueue, spoilt: bytes) -> None:
    """An operator learns that it was there; its megabytes are gone."""
    queue.push(spoilt)
    [claimed] = queue.store().claim(8, held=0).messages
    arrival = judged(claimed)
    assert arrival.fate is Fate.BURY
    assert arrival.held.dead_letter is not None
    assert len(arrival.held.dead_letter.text) < 2_000


def test_a_job_of_a_tenant_is_held_to_the_same_size(queue: LeaseQueue) -> None:
    """Wherever it waited."""
    queue.place(FlowJob(large("flowing"), tenant="acme"))
    [claimed] = queue.store().claim(8, held=0).messages
    assert len(claimed.raw) < 1_000
    assert judged(claimed).held.job_id == "flowing"


def test_what_goes_back_is_refused_again(queue: LeaseQueue) -> None:
    """The worker that was to answer it died: the next one answers."""
    queue.push(large())
    store = queue.store()
    [first] = store.claim(1, held=0).messages
    queue.expire()
    assert store.reap() == [first.tag]
    [again] = store.claim(1, held=0).messages
    assert (again.raw, again.delivery) == (first.raw, 2)
    assert judged(again).held.verdict is not None


def test_one_claim_takes_only_so_many_bytes(queue: LeaseQueue) -> None:
    """Sixty-four of the largest in one reply would be gigabytes; the others are claimed next."""
    half = b"x" * (MOST_BYTES // 2)
    queue.push(*[half] * 5)
    store = queue.store()
    sizes = [len(store.claim(8, held=0).messages) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


def test_a_message_of_the_largest_size_is_read(queue: LeaseQueue) -> None:
    """And the next byte is one too many."""
    queue.push(b"x" * MOST_BYTES)
    assert raws(queue.store().claim(1, held=0).messages) == [b"x" * MOST_BYTES]


@pytest.mark.parametrize("character", ["a", '"', "\\", "\n", "\x01", "é", "字", "😀"])
def test_whatever_the_contract_takes_fits(character: str) -> None:
    """The longest prompt of each kind of character, as our producers write it and as a stock Celery sender does."""
    prompt = character * (MAX_PROMPT_BYTES // len(character.encode()))
    if len(json.dumps(prompt, ensure_ascii=False).encode()) > MAX_MESSAGE_BYTES:
        prompt = prompt[: MAX_MESSAGE_BYTES // len(json.dumps(character))]
    request = GenerationRequest(model=MODEL, prompt=prompt)
    ours = task_message(new_job(request)).at(0.0)
    with Celery("sender", broker="memory://", set_as_current=False) as app:
        app.send_task(
            keys.TASK_NAME, args=[{"model": MODEL, "prompt": prompt}], queue=keys.queue(MODEL), argsrepr="(…)"
        )
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            stock = json.dumps(channel._get(keys.queue(MODEL))).encode()
    assert max(len(ours), len(stock)) <= drain_policy.MAX_MESSAGE_BYTES


def test_the_setting_and_the_policy_say_the_same() -> None:
    """A worker and a test of the scripts read messages of one size."""
    assert WorkerSettings().max_message_bytes == drain_policy.MAX_MESSAGE_BYTES
