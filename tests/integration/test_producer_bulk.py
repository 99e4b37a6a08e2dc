"""One run of the enqueue script for many jobs: in order, each whole or not at all, and never one of them twice."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import InvalidRequest, Priority, Producer, Submission, UnknownModel, keys
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS
from producer.link import Link
from producer.message import task_message, task_sent_event
from producer.script import ScriptRun
from producer.submission import (
    Destination,
    PreparedJob,
    Refusal,
    as_request,
    enqueue_run,
    prepare,
    read_replies,
)
from tests.queued import queued
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

DESTINATION = Destination(database=0, record_seconds=100)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server, on which the fleet knows two models."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain, Producer(redis_url) as producer:
        producer.declare_model("m")
        producer.declare_model("n")
        yield plain


@pytest.fixture
def link(redis_url: str) -> Iterator[Link]:
    """The producer's own way to the server."""
    connected = connect(redis_url)
    yield connected
    connected.close()


def connect(redis_url: str) -> Link:
    """A link with the usual patience."""
    return Link(
        redis_url, connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS, socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS
    )


def prepared(*requests: dict[str, Any]) -> list[PreparedJob]:
    """Jobs of the model ``m`` unless they say otherwise."""
    return [prepare(as_request({"model": "m", "prompt": f"prompt {n}"} | r)) for n, r in enumerate(requests)]


def enqueue(link: Link, jobs: Sequence[PreparedJob]) -> list[Submission | Refusal]:
    """All of them in one run."""
    return read_replies(jobs, link.enqueue(enqueue_run(jobs, DESTINATION)))


def waiting(client: redis.Redis, model: str = "m", priority: Priority = Priority.NORMAL) -> list[str]:
    """The ids of the jobs in a lane, the next one first."""
    return [message["headers"]["id"] for message in queued(client, model, priority)]


def test_jobs_of_many_models_and_lanes_wait_in_the_order_in_which_they_came(client: redis.Redis, link: Link) -> None:
    """Each in its own lane, each with its own record."""
    jobs = prepared(*({"model": model, "priority": lane} for _ in range(20) for model in "mn" for lane in Priority))

    found = enqueue(link, jobs)

    assert [each.job_id if isinstance(each, Submission) else each for each in found] == [job.job_id for job in jobs]
    for model in "mn":
        for lane in Priority:
            ours = [job for job in jobs if (job.request.model, job.request.priority) == (model, lane)]
            assert waiting(client, model, lane) == [job.job_id for job in ours]
            records = [client.hgetall(keys.job_record(job.job_id)) for job in ours]
            assert {(record["model"], record["priority"]) for record in records} == {(model, lane.value)}
            assert [record["token"] for record in records] == [job.submission_token for job in ours]


def test_what_waits_in_the_lane_is_the_message_that_the_producer_describes(client: redis.Redis, link: Link) -> None:
    """Part for part, with and without what few jobs have."""
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    jobs = prepared(
        {"prompt": 'ünï "quoted" \\ \x00 \U0001f600'},
        {"prompt": "\ud800", "tenant": "t", "deadline": deadline, "idempotency_key": "k"},
        {"prompt": None, "prompt_token_ids": (1, 2), "metadata": {"}]": '"'}},
    )

    found = enqueue(link, jobs)

    waiting = {message["headers"]["id"]: message for message in queued(client)}
    assert len(waiting) == len(jobs)
    for job, became in zip(jobs, found, strict=True):
        assert isinstance(became, Submission)
        assert waiting[job.job_id] == json.loads(task_message(job).at(became.enqueued_at))


def test_whoever_listens_is_told_of_every_job_and_nothing_is_missed_when_nobody_does(
    client: redis.Redis, link: Link
) -> None:
    """The script asks nobody: the server says how many heard the first event."""
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    unheard = enqueue(link, prepared({}, {}))
    with client.pubsub() as listening:  # type: ignore[no-untyped-call]  # the library's hints have a gap
        listening.psubscribe("/0.celeryev/*")
        eventually(lambda: client.pubsub_numpat() > 0, what="the subscription")
        jobs = prepared({}, {"deadline": deadline, "tenant": "t"}, {"model": "n"})
        found = enqueue(link, jobs)
        heard: list[str] = []

        def all_were_heard() -> bool:
            message = listening.get_message(ignore_subscribe_messages=True)
            heard.extend([message["data"]] if message else [])
            return len(heard) == len(jobs)

        eventually(all_were_heard, what="one event for each job")

    assert [type(each) for each in unheard] == [Submission, Submission]
    for job, became, event in zip(jobs, found, heard, strict=True):
        assert isinstance(became, Submission)
        assert json.loads(event) == json.loads(task_sent_event(job).at(became.enqueued_at))


def test_one_key_twice_in_one_run_is_one_job(client: redis.Redis, link: Link) -> None:
    """And another body under it is a conflict that names that job."""
    jobs = prepared(
        {"prompt": "x", "idempotency_key": "k"},
        {"prompt": "x", "idempotency_key": "k"},
        {"prompt": "y", "idempotency_key": "k"},
        {"prompt": "y", "idempotency_key": "k", "tenant": "other"},
    )

    first, same, conflict, others = enqueue(link, jobs)

    assert isinstance(first, Submission)
    assert isinstance(same, Submission)
    assert isinstance(others, Submission)
    assert (first.duplicate, same.duplicate, others.duplicate) == (False, True, False)
    assert (same.job_id, same.enqueued_at) == (first.job_id, first.enqueued_at)
    assert same.submission_token == first.submission_token
    assert isinstance(conflict, InvalidRequest)
    assert f"'k' names job {first.job_id}" in str(conflict)
    assert waiting(client) == [first.job_id, others.job_id]


def test_an_unknown_model_among_known_ones_costs_only_its_own_jobs(client: redis.Redis, link: Link) -> None:
    """Each of them is told which are known."""
    jobs = prepared({}, {"model": "typo"}, {}, {"model": "typo"})

    first, typo, second, again = enqueue(link, jobs)

    assert waiting(client) == [jobs[0].job_id, jobs[2].job_id]
    assert isinstance(first, Submission)
    assert isinstance(second, Submission)
    for refusal in (typo, again):
        assert isinstance(refusal, UnknownModel)
        assert (refusal.model, refusal.known) == ("typo", ("m", "n"))
    assert not client.exists(keys.job_record(jobs[1].job_id))


def test_jobs_that_are_sent_again_are_queued_once_also_beside_new_ones(client: redis.Redis, link: Link) -> None:
    """In another composition too: the job ids decide, not the run."""
    jobs = prepared({}, {}, {}, {})

    first = enqueue(link, jobs[:3])
    again = enqueue(link, jobs[1:])

    assert again[:2] == first[1:]
    assert waiting(client) == [job.job_id for job in jobs]


def test_a_reply_that_is_lost_makes_no_job_twice(redis_url: str, client: redis.Redis) -> None:
    """The server had queued all of them when the connection broke; they are sent again."""
    link = LosesItsFirstReply(
        redis_url, connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS, socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS
    )
    jobs = prepared({}, {"idempotency_key": "k"}, {"model": "typo"})

    first, keyed, typo = enqueue(link, jobs)
    link.close()

    assert link.runs == 2
    assert [type(each) for each in (first, keyed, typo)] == [Submission, Submission, UnknownModel]
    assert isinstance(keyed, Submission)
    assert not keyed.duplicate
    assert waiting(client) == [jobs[0].job_id, jobs[1].job_id]


class LosesItsFirstReply(Link):
    """The real link, whose connection breaks once after the server has acted."""

    runs = 0

    def _run(self, run: ScriptRun) -> object:
        reply = super()._run(run)
        self.runs += 1
        if self.runs == 1:
            raise redis.ConnectionError("Connection closed by server.")
        return reply


def test_a_lane_that_refuses_leaves_the_jobs_before_it_whole_and_those_after_it_untouched(
    client: redis.Redis, link: Link
) -> None:
    """The error reaches the caller, who may send all of them again."""
    lane = keys.lane("n", Priority.NORMAL)
    client.set(lane, "not a list")
    jobs = prepared({}, {"model": "n"}, {})

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        enqueue(link, jobs)
    assert waiting(client) == [jobs[0].job_id]
    assert client.llen(keys.QueueKeys("m").doorbell) == 1
    assert [client.exists(keys.job_record(job.job_id)) for job in jobs] == [1, 0, 0]

    client.delete(lane)
    assert all(isinstance(each, Submission) for each in enqueue(link, jobs))
    assert (waiting(client), waiting(client, "n")) == ([jobs[0].job_id, jobs[2].job_id], [jobs[1].job_id])


def test_a_doorbell_that_can_not_be_rung_costs_no_job(client: redis.Redis, link: Link) -> None:
    """Workers look now and then anyway."""
    client.set(keys.QueueKeys("m").doorbell, "not a list")

    [became] = enqueue(link, prepared({}))

    assert isinstance(became, Submission)
    assert waiting(client) == [became.job_id]


@pytest.mark.parametrize(("jobs", "tokens"), [(1, 1), (5, 5), (40, 16)])
def test_a_burst_leaves_a_token_per_job_but_never_many(client: redis.Redis, link: Link, jobs: int, tokens: int) -> None:
    """One token wakes one worker."""
    enqueue(link, prepared(*({} for _ in range(jobs))))
    enqueue(link, prepared(*({} for _ in range(jobs))))

    assert client.llen(keys.QueueKeys("m").doorbell) == min(2 * tokens, 16)
    assert 0 < client.ttl(keys.QueueKeys("m").doorbell) <= 3600


def test_a_server_that_restarted_is_given_the_script_and_takes_the_same_jobs_once(tmp_path: Path) -> None:
    """The kept connection is dead, the script is forgotten, the jobs are not."""
    server = EmbeddedServer(tmp_path, free_port(), append_fsync="always")
    jobs = prepared(*({} for _ in range(50)))
    with server, Producer(server.url) as producer:
        producer.declare_model("m")
        link = connect(server.url)
        enqueue(link, jobs[:30])
        server.kill()
        server.start()

        found = enqueue(link, jobs)

        assert all(isinstance(each, Submission) and not each.duplicate for each in found)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert waiting(client) == [job.job_id for job in jobs]
        link.close()
