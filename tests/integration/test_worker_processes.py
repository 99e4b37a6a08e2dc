"""The worker's processes: pinning, restarts, failing starts, draining."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import redis

from producer.jobs import JobState
from tests.running import simulated
from tests.waiting import eventually

LONG = {"max_tokens": 100, "ignore_eos": True}


def environment_of(process: psutil.Process) -> dict[str, str]:
    """The environment that a live process was started with, as the kernel tells."""
    raw = Path(f"/proc/{process.pid}/environ").read_bytes()
    return dict(pair.decode().partition("=")[::2] for pair in raw.split(b"\0") if pair)


def test_each_worker_process_is_pinned_before_it_starts(redis_url: str, tmp_path: Path) -> None:
    """CUDA_VISIBLE_DEVICES is in the environment that the kernel started each process with, so before any import."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"worker.gpus": "0,1"}
    fleet.workers = 2
    fleet.environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    with fleet:
        devices = {environment_of(process)["CUDA_VISIBLE_DEVICES"] for process in fleet.worker_processes()}
        assert devices == {"0", "1"}
        assert all(environment_of(p)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID" for p in fleet.worker_processes())


def test_an_engine_over_several_gpus_gets_them_together(redis_url: str, tmp_path: Path) -> None:
    """tensor_parallel_size takes that many GPUs per worker process; the simulated engine refuses the option itself."""
    fleet = simulated(redis_url, tmp_path, tensor_parallel_size=2)
    fleet.options = dict(fleet.options) | {"worker.gpus": "0,1,2"}
    fleet.environ = {"CUDA_VISIBLE_DEVICES": "0,1,2"}
    fleet.start()
    assert fleet.process is not None
    assert fleet.process.wait(30) == 78
    assert "3 GPUs do not divide into engines of 2" in fleet.log.read_text()


def test_a_worker_that_is_killed_is_started_again(redis_url: str, tmp_path: Path) -> None:
    """The supervisor notices, backs off, and the new process serves."""
    with simulated(redis_url, tmp_path) as fleet, fleet.producer() as producer:
        first = fleet.worker_processes()[0]
        first.kill()
        eventually(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, what="the worker is gone")
        eventually(
            lambda: fleet.worker_processes() and fleet.worker_processes()[0].pid != first.pid, what="a new process"
        )
        fleet.wait_until_ready()
        job = producer.submit(model="sim", prompt="after", sampling={"max_tokens": 3, "ignore_eos": True})
        assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 3


def test_a_dead_engine_ends_the_worker_and_its_jobs_are_done_by_the_next(redis_url: str, tmp_path: Path) -> None:
    """Kill -9 of the engine's core while jobs run: none is lost, none is answered with the crash."""
    with simulated(redis_url, tmp_path, seconds_per_token=0.01) as fleet, fleet.producer() as producer:
        jobs = [producer.submit(model="sim", prompt=f"job {n}", sampling=LONG) for n in range(100)]
        eventually(lambda: fleet.metric("fleet_active_jobs") > 30, what="jobs run")
        worker = fleet.worker_processes()[0]
        worker.children()[0].kill()
        eventually(lambda: not worker.is_running(), what="the worker process ended")
        results = [producer.result(job, timeout_seconds=60) for job in jobs]
        assert all(result.usage.completion_tokens == 100 for result in results)
        assert "ended with 70" in fleet.log.read_text()


@pytest.mark.parametrize(
    ("options", "exit_code", "complaint"),
    [
        ({"engine.options.start_fault": "fails"}, 70, "the engine did not start: the simulated engine was told to"),
        ({"engine.options.max_num_seq": 3}, 78, "did you mean 'max_num_seqs'?"),
        ({"worker.batch_max_job": 3}, 78, "did you mean"),
        ({"model.name": ""}, 78, "no model"),
        ({"engine.start_timeout_seconds": 0.2, "engine.options.start_seconds": 60}, 70, "not ready within 0.2 s"),
    ],
)
def test_a_start_that_fails_ends_with_its_cause_in_one_line(
    redis_url: str, tmp_path: Path, options: dict[str, object], exit_code: int, complaint: str
) -> None:
    """Never a hang, never a traceback: one line, and a code that says whether a restart may help."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | options
    fleet.start()
    assert fleet.process is not None
    assert fleet.process.wait(60) == exit_code
    log = fleet.log.read_text()
    assert [line for line in log.splitlines() if complaint in line and line.startswith("fleet worker:")], log
    assert "Traceback" not in log


def test_a_server_that_evicts_is_refused(redis_url: str, tmp_path: Path) -> None:
    """When its memory is full it would drop jobs, leases or results: not with us, and it says what to set."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            fleet = simulated(redis_url, tmp_path)
            fleet.start()
            assert fleet.process is not None
            assert fleet.process.wait(60) == 78
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "CONFIG SET maxmemory-policy noeviction" in fleet.log.read_text()


def test_a_metrics_port_in_use_is_named(redis_url: str, tmp_path: Path) -> None:
    """Two fleets on one machine: the second one says what to set."""
    with simulated(redis_url, tmp_path) as fleet:
        second = simulated(redis_url, tmp_path)
        second.port = fleet.port
        second.start()
        assert second.process is not None
        assert second.process.wait(60) == 78
        assert "set metrics.port to a free one" in second.log.read_text()


def test_sigterm_finishes_what_runs_and_leaves_the_rest_queued(redis_url: str, tmp_path: Path) -> None:
    """Within the budget running jobs are answered; what the worker never took stays in the queue; exit code 0."""
    options = {"seconds_per_token": 0.01, "max_num_seqs": 10}
    fleet = simulated(redis_url, tmp_path, **options)
    with fleet.producer() as producer:
        with fleet:
            jobs = [producer.submit(model="sim", prompt=f"job {n}", sampling=LONG) for n in range(40)]
            eventually(lambda: fleet.metric("fleet_active_jobs") >= 10, what="jobs run")
            assert fleet.stop() == 0
        states = [producer.status(job).state for job in jobs]
        assert states.count(JobState.SUCCEEDED) >= 10
        assert set(states) == {JobState.SUCCEEDED, JobState.QUEUED}
        # A model that was served stays known: with no worker up a job is taken, and waits.
        jobs.append(producer.submit(model="sim", prompt="while nobody serves", sampling=LONG))
        assert producer.status(jobs[-1]).state is JobState.QUEUED
        with simulated(redis_url, tmp_path, **options):
            assert all(producer.result(job, timeout_seconds=60) for job in jobs)


def test_what_does_not_fit_the_drain_budget_is_handed_back(redis_url: str, tmp_path: Path) -> None:
    """A job longer than the budget goes back unanswered and the next worker does it."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.05)
    fleet.options = dict(fleet.options) | {"worker.drain_timeout_seconds": 0.5}
    with fleet.producer() as producer:
        with fleet:
            job = producer.submit(model="sim", prompt="long", sampling=LONG)
            eventually(lambda: fleet.metric("fleet_active_jobs") == 1, what="the job runs")
            began_at = time.monotonic()
            assert fleet.stop() == 0
            assert time.monotonic() - began_at < 20
        assert "1 unfinished jobs go back to the queue" in fleet.log.read_text()
        with simulated(redis_url, tmp_path):
            assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 100


def test_a_killed_supervisor_leaves_no_worker_behind(redis_url: str, tmp_path: Path) -> None:
    """The kernel tells the workers."""
    with simulated(redis_url, tmp_path) as fleet:
        worker = fleet.worker_processes()[0]
        assert fleet.process is not None
        os.kill(fleet.process.pid, signal.SIGKILL)
        eventually(lambda: not worker.is_running(), what="the worker ended")
