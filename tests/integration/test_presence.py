"""The fleet knows which workers are there, what they do and whether they take jobs."""

import signal
from pathlib import Path

from producer import Producer
from producer.presence import Phase, WorkerPresence
from tests.running import RunningFleet, simulated
from tests.waiting import eventually


def only(producer: Producer, model: str | None = None) -> WorkerPresence | None:
    """The one worker that is there, if it is."""
    found = producer.workers(model)
    assert len(found) <= 1
    return found[0] if found else None


def phase(producer: Producer) -> Phase | None:
    """Where that one is."""
    found = only(producer)
    return found.phase if found else None


def test_a_worker_is_known_from_its_start_to_its_end(redis_url: str, tmp_path: Path) -> None:
    """Loading, ready, draining while its jobs end, and gone at once when it has ended."""
    fleet = simulated(redis_url, tmp_path, start_seconds=1, seconds_per_token=0.01)
    with Producer(redis_url) as producer:
        assert producer.workers() == []
        fleet.start()
        try:
            eventually(lambda: phase(producer) is Phase.LOADING, what="it says that it loads")
            loading = only(producer)
            assert loading is not None
            assert (loading.is_ready, loading.slots) == (False, 0)
            fleet.wait_until_ready()
            eventually(lambda: phase(producer) is Phase.READY, what="it says that it is ready")
            job = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 500, "ignore_eos": True})
            eventually(lambda: (now := only(producer)) and now.running_jobs == 1, what="its job counts")
            assert fleet.process is not None
            fleet.process.send_signal(signal.SIGTERM)
            eventually(lambda: phase(producer) is Phase.DRAINING, what="it says that it drains")
            assert producer.result(job, timeout_seconds=60).usage.completion_tokens == 500
        finally:
            fleet.stop()
        assert producer.workers() == []


def test_a_worker_tells_what_it_can_hold_and_what_it_has_done(fleet: RunningFleet, producer: Producer) -> None:
    """Of either engine: its limits, its pages and its rates."""
    [before] = producer.workers(fleet.served)
    for _ in range(3):
        job = producer.submit(model=fleet.served, prompt="count", sampling={"max_tokens": 20, "ignore_eos": True})
        producer.result(job, timeout_seconds=60)
    # The fleet is shared, and may have been idle: what it had done before is not what is asked about.
    wanted = before.finished_jobs + 3
    eventually(lambda: producer.workers(fleet.served)[0].finished_jobs >= wanted, what="three jobs are counted")
    [worker] = producer.workers(fleet.served)
    assert worker.worker == before.worker
    assert worker.is_ready
    assert worker.engine_version
    assert worker.slots > worker.max_num_seqs > 0
    assert worker.max_model_len > 0
    assert worker.kv_cache_tokens is None or worker.kv_cache_tokens > 0
    assert worker.pages == f"http://127.0.0.1:{fleet.port}"
    assert worker.process_id in {process.pid for process in fleet.worker_processes()}
    assert worker.jobs_per_second > 0
    assert worker.generation_tokens_per_second > worker.jobs_per_second
    assert producer.workers("another model") == []


def test_a_killed_worker_is_missed_soon_and_its_successor_is_known_by_the_same_name(
    redis_url: str, tmp_path: Path
) -> None:
    """Nobody says good-bye for it; the supervisor's next process says that it is there."""
    with simulated(redis_url, tmp_path) as fleet, Producer(redis_url) as producer:
        eventually(lambda: phase(producer) is Phase.READY, what="it says that it is ready")
        first = only(producer)
        assert first is not None
        [process] = fleet.worker_processes()
        process.kill()
        eventually(
            lambda: (now := only(producer)) and now.is_ready and now.process_id != first.process_id,
            what="its successor is ready",
        )
        successor = only(producer)
        assert successor is not None
        assert successor.worker == first.worker
        assert fleet.process is not None
        for one in [*fleet.worker_processes(), fleet.process]:
            one.kill()
        eventually(lambda: not producer.workers(), what="nobody is there")
