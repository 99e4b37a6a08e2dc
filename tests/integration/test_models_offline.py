"""A worker that starts from the cache alone, with the hub gone."""

from pathlib import Path

import pytest

from tests.model_hub import Repository, folder_files, model_hub
from tests.model_machine import NAME, Machine
from tests.running import VLLM_OPTIONS, RunningFleet


@pytest.mark.vllm
def test_a_worker_serves_a_pulled_model_by_its_name_without_a_network(
    redis_url: str, tmp_path: Path, tiny_model: Path
) -> None:
    """The real engine, told to ask nobody: the hub of which the model came has stopped."""
    with model_hub() as hub:
        hub.repositories[NAME] = Repository(folder_files(tiny_model))
        machine = Machine(hub, tmp_path)
        pulled = machine.run("pull", NAME)
        assert pulled.returncode == 0, pulled.stderr
        asked = len(hub.asked)
        environ = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    with RunningFleet(redis_url, tmp_path, NAME, options, environ=environ) as fleet, fleet.producer() as producer:
        job = producer.submit(model=NAME, prompt="Why queues?", sampling={"max_tokens": 8, "ignore_eos": True})
        result = producer.result(job, timeout_seconds=120)
    assert result.usage.completion_tokens == 8
    assert len(hub.asked) == asked
