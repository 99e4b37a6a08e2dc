"""A server dies and its replica takes over: who has a ``sentinel://`` address goes on there by itself."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from producer import AsyncProducer, Producer, keys
from producer.contract import GenerationResult
from producer.errors import ResultExpired, SubmitFailed
from producer.jobs import JobState, Submission
from tests.running import RunningFleet, simulated
from tests.sentinels import ReplicatedServers
from tests.waiting import eventually

pytestmark = pytest.mark.slow

JOB_COUNT = 24
SLOTS = 16
TOKENS = 30
RESULT_SECONDS = 90.0
MODEL = "sim"
NEEDS_ITS_REPLICA = {"min-replicas-to-write": 1, "min-replicas-max-lag": 1}


def fleet_on(servers: ReplicatedServers, folder: Path) -> RunningFleet:
    """Jobs of three seconds and short leases: a failover takes longer than a lease."""
    fleet = simulated(servers.url, folder, seconds_per_token=0.1, max_num_seqs=SLOTS)
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 1.0}
    return fleet


def submitted(producer: Producer, count: int, tokens: int = TOKENS) -> list[Submission]:
    """Jobs that differ in their prompts."""
    sampling = {"max_tokens": tokens, "ignore_eos": True}
    return [producer.submit(model=MODEL, prompt=f"job {number}", sampling=sampling) for number in range(count)]


def results_of(producer: Producer, jobs: Sequence[Submission]) -> list[GenerationResult]:
    """Every job's result, in order."""
    return [producer.result(job, timeout_seconds=RESULT_SECONDS) for job in jobs]


def is_taken(producer: Producer) -> bool:
    """Whether a submit works now; if not, it fails as callers are told that it may."""
    try:
        submitted(producer, 1, tokens=1)
    except SubmitFailed:
        return False
    return True


def leftovers(url: str) -> list[str]:
    """Keys of the queue that hold something."""
    names = keys.QueueKeys(MODEL)
    with redis.Redis.from_url(url) as client:
        lanes = (keys.lane_of_step(MODEL, step) for step in keys.PRIORITY_STEPS.values())
        held = (names.leases, names.leased, names.suspects, names.delayed, names.redelivery)
        return [name for name in (*lanes, *held) if client.exists(name)]


def test_jobs_that_the_replica_knew_are_answered_once_though_the_primary_dies(tmp_path: Path) -> None:
    """Running ones go on and keep their leases, waiting ones are claimed from the new master; passwords everywhere."""
    with (
        ReplicatedServers.started(tmp_path, password="open", sentinel_password="sesame") as servers,  # noqa: S106 - a test's
        fleet_on(servers, tmp_path) as fleet,
        fleet.producer() as producer,
        fleet.celery() as app,
    ):
        [worker] = fleet.worker_processes()
        jobs = submitted(producer, JOB_COUNT)
        eventually(lambda: fleet.metric("fleet_active_jobs") >= SLOTS, what="jobs run")
        eventually(servers.is_in_step, what="the replica has them all")
        servers.primary.kill()
        with pytest.raises(SubmitFailed, match="sentinel://"):
            submitted(producer, 1)
        servers.wait_for_failover()
        later = submitted(producer, 2, tokens=1)
        results = results_of(producer, [*jobs, *later])
        assert [result.id for result in results] == [job.job_id for job in [*jobs, *later]]
        assert {result.attempt for result in results} == {1}
        eventually(lambda: leftovers(servers.replica.url) == [], what="nothing is left over")
        assert fleet.metric("fleet_requests_total") == len(results)
        assert app.control.inspect(timeout=30, limit=1).stats()
        assert [process.pid for process in fleet.worker_processes()] == [worker.pid]


def test_what_the_primary_took_and_did_not_pass_on_is_lost_with_it(tmp_path: Path) -> None:
    """Replication is asynchronous: the caller of such a job learns that nothing is known of it, and submits again."""
    with ReplicatedServers.started(tmp_path) as servers, Producer(servers.url) as producer:
        producer.declare_model(MODEL)
        [kept] = submitted(producer, 1)
        eventually(servers.is_in_step, what="the replica has it")
        servers.cut_replication()
        [lost] = submitted(producer, 1)
        servers.primary.kill()
        servers.replica.resume()
        servers.wait_for_failover()
        assert producer.status(kept).state is JobState.QUEUED
        with pytest.raises(ResultExpired):
            producer.status(lost)
        with pytest.raises(ResultExpired):
            producer.result(lost, timeout_seconds=RESULT_SECONDS)


def test_a_primary_that_needs_its_replica_refuses_jobs_while_it_is_alone(tmp_path: Path) -> None:
    """``min-replicas-to-write`` narrows what can be lost to ``min-replicas-max-lag`` seconds; no worker minds."""
    with (
        ReplicatedServers.started(tmp_path, NEEDS_ITS_REPLICA) as servers,
        fleet_on(servers, tmp_path) as fleet,
        fleet.producer() as producer,
    ):
        [worker] = fleet.worker_processes()
        jobs = submitted(producer, SLOTS // 2)
        servers.replica.pause()
        eventually(lambda: not is_taken(producer), what="a submit is refused")
        with pytest.raises(SubmitFailed, match="NOREPLICAS"):
            submitted(producer, 1)
        eventually(lambda: fleet.log.read_text().count("action=writes_refused") > 1, what="the worker comes again")
        servers.replica.resume()
        eventually(lambda: is_taken(producer), what="a submit is taken again")
        assert {result.attempt for result in results_of(producer, jobs)} == {1}
        assert [process.pid for process in fleet.worker_processes()] == [worker.pid]


async def test_a_master_that_became_a_replica_is_left_for_the_new_one(tmp_path: Path) -> None:
    """Open connections learn it from ``READONLY`` and ``UNBLOCKED``; each is made anew, and no worker ends."""
    with (
        ReplicatedServers.started(tmp_path) as servers,
        fleet_on(servers, tmp_path) as fleet,
        fleet.producer() as producer,
    ):
        [worker] = fleet.worker_processes()
        async with AsyncProducer(servers.url) as async_producer:
            jobs = submitted(producer, SLOTS // 2)
            jobs.append(await async_producer.submit(model=MODEL, prompt="x"))
            eventually(lambda: fleet.metric("fleet_active_jobs") == len(jobs), what="jobs run, and slots are free")
            eventually(servers.is_in_step, what="the replica has them all")
            servers.swap()
            jobs += submitted(producer, 1)
            jobs.append(await async_producer.submit(model=MODEL, prompt="y"))
            results = [await async_producer.result(job, timeout_seconds=RESULT_SECONDS) for job in jobs]
        assert [result.id for result in results] == [job.job_id for job in jobs]
        assert servers.primary.replication()["role"] == "slave"
        assert [process.pid for process in fleet.worker_processes()] == [worker.pid]
        eventually(lambda: leftovers(servers.replica.url) == [], what="nothing is left over")
