"""Redis goes away and comes back: every job gets its result, callers hear of it, no worker dies."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from producer import Producer, keys
from producer.contract import GenerationResult
from producer.errors import FleetUnreachable, SubmitFailed
from producer.jobs import Submission
from tests.running import RunningFleet, simulated
from tests.waiting import eventually
from workers.embedded import EmbeddedServer

JOB_COUNT = 60
TOKENS = 50
AWAY_SECONDS = 2.0
RESULT_SECONDS = 90.0
STORE_RETRIED = "action=result_waits"
"""Once per attempt to store results while the server is away."""


def submitted(producer: Producer, count: int, tokens: int = TOKENS) -> list[Submission]:
    """Jobs that differ in their prompts."""
    sampling = {"max_tokens": tokens, "ignore_eos": True}
    return [producer.submit(model="sim", prompt=f"job {number}", sampling=sampling) for number in range(count)]


def results_of(producer: Producer, jobs: Sequence[Submission]) -> list[GenerationResult]:
    """Every job's result, in order."""
    return [producer.result(job, timeout_seconds=RESULT_SECONDS) for job in jobs]


def crash(server: EmbeddedServer) -> None:
    """Kill the server and keep it away for a while; a fault's length, not a wait for something to become true."""
    server.kill()
    threading.Event().wait(AWAY_SECONDS)


def assert_served(fleet: RunningFleet, producer: Producer) -> None:
    """A job that is submitted now is answered."""
    [result] = results_of(producer, submitted(producer, 1, tokens=3))
    assert result.usage.completion_tokens == 3
    eventually(lambda: fleet.page("/ready")[0] == 200, what="the worker is ready")


def test_every_job_gets_its_result_though_the_server_crashes_meanwhile(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    """The worker process lives through it; jobs that ran or waited at that moment are answered, each with its own."""
    with (
        durable_server,
        simulated(durable_server.url, tmp_path, seconds_per_token=0.02, max_num_seqs=16) as fleet,
        fleet.producer() as producer,
    ):
        worker = fleet.worker_processes()[0]
        jobs = submitted(producer, JOB_COUNT)
        eventually(lambda: fleet.metric("fleet_active_jobs") >= 16, what="jobs run")
        crash(durable_server)
        durable_server.start()
        results = results_of(producer, jobs)
        assert [result.id for result in results] == [job.job_id for job in jobs]
        assert all(result.usage.completion_tokens == TOKENS for result in results)
        assert [process.pid for process in fleet.worker_processes()] == [worker.pid]


def test_results_that_were_ready_while_the_server_was_away_are_kept(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Generation goes on without the server; what ends meanwhile waits in the worker until it can be written."""
    with (
        durable_server,
        simulated(durable_server.url, tmp_path, seconds_per_token=0.02) as fleet,
        fleet.producer() as producer,
    ):
        jobs = submitted(producer, 8)
        eventually(lambda: fleet.metric("fleet_active_jobs") == 8, what="all jobs run")
        durable_server.kill()
        eventually(lambda: STORE_RETRIED in fleet.log.read_text(), what="an outcome waits for the server")
        durable_server.start()
        assert all(result.usage.completion_tokens == TOKENS for result in results_of(producer, jobs))


def test_an_outage_longer_than_a_lease_runs_nothing_twice(durable_server: EmbeddedServer, tmp_path: Path) -> None:
    """Every lease has run out when the server is back: whoever lives renews first, and only then is anything reaped.

    Meanwhile jobs go on, results wait, and producers hear at once that the server is away. A longer one:
    ``OUTAGE_SECONDS=60 OUTAGE_JOBS=100``.
    """
    outage_seconds = float(os.environ.get("OUTAGE_SECONDS", "6"))
    job_count = int(os.environ.get("OUTAGE_JOBS", "10"))
    fleets = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fleet = simulated(durable_server.url, tmp_path / name, seconds_per_token=0.2, max_num_seqs=job_count)
        fleet.options = dict(fleet.options) | {"worker.lease_seconds": 3.0}
        fleets.append(fleet)
    busy, idle = fleets
    with durable_server, busy, busy.producer() as producer:
        jobs = submitted(producer, job_count)
        eventually(lambda: busy.metric("fleet_active_jobs") == job_count, what="all jobs run")
        with idle:
            durable_server.kill()
            away_since = time.monotonic()
            with pytest.raises(SubmitFailed, match="could not be reached"):
                submitted(producer, 1)
            eventually(lambda: time.monotonic() > away_since + outage_seconds, seconds=outage_seconds + 5, what="it")
            durable_server.start()
            assert {result.attempt for result in results_of(producer, jobs)} == {1}
            assert idle.metric("fleet_leases_reaped_total") == 0
            assert results_of(producer, submitted(producer, 1))


def test_producers_hear_that_the_server_is_away_and_work_on_when_it_is_back(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Clear errors that name nothing half done, on the same producer that works before and after."""
    with durable_server, simulated(durable_server.url, tmp_path) as fleet, fleet.producer() as producer:
        [before] = submitted(producer, 1)
        results_of(producer, [before])
        durable_server.kill()
        with pytest.raises(SubmitFailed):
            submitted(producer, 1)
        with pytest.raises(FleetUnreachable):
            producer.status(before)
        with pytest.raises(FleetUnreachable):
            producer.result(before, timeout_seconds=0.5)
        durable_server.start()
        assert producer.result(before, timeout_seconds=RESULT_SECONDS).id == before.job_id
        assert_served(fleet, producer)


def test_a_worker_that_starts_without_a_server_becomes_ready_when_it_comes(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Machines boot in any order: it says what it waits for, does not end, and is not ready before."""
    fleet = simulated(durable_server.url, tmp_path)
    fleet.start()
    try:
        eventually(lambda: "Cannot connect to" in fleet.log.read_text(), what="the worker tries", seconds=60)
        [worker] = fleet.worker_processes()
        assert fleet.page("/health")[0] == 200
        assert fleet.page("/ready")[0] == 503
        durable_server.start()
        fleet.wait_until_ready()
        assert [process.pid for process in fleet.worker_processes()] == [worker.pid]
        with fleet.producer() as producer:
            assert_served(fleet, producer)
    finally:
        fleet.stop()


def test_an_idle_worker_serves_a_new_job_after_the_server_was_restarted(
    durable_server: EmbeddedServer, tmp_path: Path
) -> None:
    """An orderly restart, as for an upgrade; nothing stays behind in the queue or unacknowledged."""
    with durable_server, simulated(durable_server.url, tmp_path) as fleet, fleet.producer() as producer:
        assert_served(fleet, producer)
        durable_server.stop()
        durable_server.start()
        assert_served(fleet, producer)
        with redis.Redis.from_url(durable_server.url) as client:
            eventually(
                lambda: client.llen(keys.queue("sim")) == 0 and client.hlen("unacked") == 0, what="nothing left over"
            )
