"""Several engines on one device: worker processes of their own, one queue, one memory."""

import os
from pathlib import Path

import psutil
import pytest

from tests.running import VLLM_OPTIONS, RunningFleet, page_of, simulated

GIB = 1024**3
GREEDY = {"max_tokens": 24, "temperature": 0.0, "ignore_eos": True}


def cores_of(process: psutil.Process) -> set[int]:
    """The cores that a process and all that it started may run on."""
    family = [process, *process.children(recursive=True)]
    return {core for member in family for core in member.cpu_affinity()}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two engines need two cores")
def test_engines_on_one_cpu_share_a_queue_but_no_core(redis_url: str, tmp_path: Path) -> None:
    """Each has its own ports, node name and cores, and takes jobs of the same model."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.005, max_num_seqs=4)
    fleet.arguments = ["--engines-per-gpu", "2"]
    fleet.workers = 2
    with fleet, fleet.producer() as producer:
        first, second = fleet.worker_processes()
        assert cores_of(first).isdisjoint(cores_of(second))
        requests = [{"model": "sim", "prompt": f"job {n}", "sampling": GREEDY} for n in range(32)]
        results = [outcome.unwrap() for outcome in producer.map(requests)]
        assert len({result.worker for result in results}) == 2


def test_engines_that_share_gpus_see_the_same_ones(redis_url: str, tmp_path: Path) -> None:
    """Two on each of two GPUs: four workers, and the devices are in the environment of each."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"worker.gpus": "0,1", "worker.engines_per_gpu": 2}
    fleet.workers = 4
    fleet.environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    with fleet:
        devices = sorted(process.environ()["CUDA_VISIBLE_DEVICES"] for process in fleet.worker_processes())
        assert devices == ["0", "0", "1", "1"]


def test_an_engine_over_two_gpus_is_not_shared(redis_url: str, tmp_path: Path) -> None:
    """Refused before anything starts, with what to set."""
    fleet = simulated(redis_url, tmp_path, tensor_parallel_size=2)
    fleet.options = dict(fleet.options) | {"worker.gpus": "0,1", "worker.engines_per_gpu": 2}
    fleet.environ = {"CUDA_VISIBLE_DEVICES": "0,1"}
    fleet.start()
    assert fleet.process is not None
    assert fleet.process.wait(30) == 78
    assert "use --engines-per-gpu 1" in fleet.log.read_text()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two engines need two cores")
def test_two_vllm_engines_answer_one_queue_and_divide_the_memory(
    redis_url: str, tmp_path: Path, tiny_model: Path
) -> None:
    """Both answer, each from a KV cache of half the size that one would have."""
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    fleet = RunningFleet(redis_url, tmp_path, str(tiny_model), options | {"engine.options.max_num_seqs": 4})
    fleet.arguments = ["--engines-per-gpu", "2"]
    fleet.workers = 2
    with fleet, fleet.producer() as producer:
        requests = [{"model": fleet.served, "prompt": f"job {n}", "sampling": GREEDY} for n in range(32)]
        results = [outcome.unwrap() for outcome in producer.map(requests)]
        assert len({result.worker for result in results}) == 2
        assert all(result.usage.completion_tokens == GREEDY["max_tokens"] for result in results)
        caches = [kv_cache_bytes(fleet.port + worker) for worker in (0, 1)]
    assert caches == [GIB // 2, GIB // 2]


def kv_cache_bytes(port: int) -> int:
    """What vLLM's own metrics say of the KV cache that it was given."""
    page = page_of(f"http://127.0.0.1:{port}/metrics")[1]
    line = next(line for line in page.splitlines() if line.startswith("vllm:cache_config_info{"))
    return int(line.partition('kv_cache_memory_bytes="')[2].partition('"')[0])
