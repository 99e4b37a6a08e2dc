"""Kill -9 of vLLM's EngineCore, and of the worker. The last file of its tier: it ends the fleet that others share."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from producer.jobs import JobState
from tests.contracts.engine_processes import engine_processes, has_ended
from tests.running import RunningFleet
from tests.waiting import eventually

LONG = {"max_tokens": 900, "temperature": 0.0, "ignore_eos": True}


def engine_core_of(worker: psutil.Process) -> psutil.Process:
    """The EngineCore process under this worker."""
    return next(child for child in worker.children() if "EngineCore" in " ".join(child.cmdline()))


@contextmanager
def paused(process: psutil.Process) -> Iterator[None]:
    """Stopped meanwhile, so that it cannot clean up after others."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.vllm
def test_a_killed_engine_core_costs_no_job(vllm_fleet: RunningFleet) -> None:
    """Every job is answered, by the restarted worker; the first one said why it ended and left nothing behind."""
    with vllm_fleet.producer() as producer:
        jobs = [producer.submit(model=vllm_fleet.served, prompt=f"job {n}", sampling=LONG) for n in range(16)]
        eventually(lambda: producer.status(jobs[0]).state is not JobState.QUEUED, seconds=90, what="jobs run")
        worker = vllm_fleet.worker_processes()[0]
        family = worker.children(recursive=True)
        engine_core_of(worker).kill()
        results = [producer.result(job, timeout_seconds=200) for job in jobs]
    assert all(result.usage.completion_tokens == 900 for result in results)
    gone = [worker, *family]
    eventually(lambda: not any(process.is_running() for process in gone), seconds=90, what="its processes are gone")
    eventually(lambda: "worker 0 ended with 70; restart in" in vllm_fleet.log.read_text(), what="the restart")
    # Which of the watchdog's looks finds it first is a matter of load: the process is gone, or it does not answer.
    told = [line for line in vllm_fleet.log.read_text().splitlines() if "the engine died" in line]
    assert any(line.startswith("fleet worker: the engine died: ") for line in told), told


@pytest.mark.vllm
def test_vllms_processes_end_by_themselves_when_the_worker_is_killed(vllm_fleet: RunningFleet) -> None:
    """No orphan keeps the model in memory, even with no supervisor to kill it."""
    assert vllm_fleet.process is not None
    vllm_fleet.wait_until_ready()  # the test before may have been answered before its kill: then it starts again now
    worker = vllm_fleet.worker_processes()[0]
    orphans = [psutil.Process(pid) for pid in engine_processes(worker.pid)]
    with paused(psutil.Process(vllm_fleet.process.pid)):
        worker.kill()
        assert orphans
        eventually(lambda: all(has_ended(orphan) for orphan in orphans), seconds=60, what="the end of the orphans")
    vllm_fleet.stop()
