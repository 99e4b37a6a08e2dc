"""LoRA adapters by name: a model's name for whoever asks, an adapter inside the engine; unknown ones are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from producer import Producer
from producer.canvas import generate
from producer.contract import FailureCode
from producer.errors import InferenceFailed, InvalidRequest, UnknownModel
from tests.running import VLLM_OPTIONS, RunningFleet, simulated
from workers.models.tiny_adapter import make_tiny_adapter
from workers.registry import record_adapters, record_aliases

GREEDY = {"max_tokens": 24, "temperature": 0.0, "ignore_eos": True}


@pytest.fixture
def adapters(tmp_path: Path) -> dict[str, str]:
    """Two of the tiny model, by their names."""
    return {name: str(make_tiny_adapter(tmp_path / name, seed)) for seed, name in enumerate(("poet", "lawyer"))}


@pytest.fixture
def operator(redis_url: str) -> Iterator[Producer]:
    """A producer of a fleet in which two models are declared."""
    with Producer(redis_url) as producer:
        producer.declare_model("large")
        producer.declare_model("other")
        yield producer


def asked(producer: Producer, model: str, **fields: object) -> str:
    """The text that a job of this model gets."""
    job = producer.submit(model=model, prompt="Once upon a time", sampling=GREEDY, **fields)
    return producer.result(job, timeout_seconds=120).text


@pytest.mark.vllm
def test_each_adapter_answers_otherwise_and_the_same_every_time(
    redis_url: str, tmp_path: Path, vllm_fleet: RunningFleet, adapters: dict[str, str]
) -> None:
    """The real engine, with both adapters and the model in one batch, and one by one; the model as ever."""
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    options |= {"model.lora_adapters": adapters}
    names = [vllm_fleet.served, *adapters]
    with vllm_fleet.producer() as producer:
        without_adapters = asked(producer, vllm_fleet.served)
    with RunningFleet(redis_url, tmp_path, vllm_fleet.model, options) as fleet, fleet.producer() as producer:
        jobs = [producer.submit(model=name, prompt="Once upon a time", sampling=GREEDY) for name in names]
        together = [producer.result(job, timeout_seconds=120).text for job in jobs]
        alone = [asked(producer, name) for name in names]
    assert together == alone
    assert together[0] == without_adapters
    assert len(set(together)) == 3


def test_a_worker_makes_its_adapters_known_and_unknown_ones_are_refused(
    redis_url: str, tmp_path: Path, adapters: dict[str, str]
) -> None:
    """At submit, before anything is queued; also a job that says so beside its model."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"model.lora_adapters": adapters}
    with fleet, fleet.producer() as producer:
        assert producer.aliases() == dict.fromkeys(adapters, "sim")
        assert asked(producer, "poet")
        assert asked(producer, "poet", tenant="t", idempotency_key="k")
        with pytest.raises(UnknownModel, match="model 'painter' is not known"):
            producer.submit(model="painter", prompt="x")
        with pytest.raises(InvalidRequest, match="name the adapter as the model"):
            producer.submit(model="sim", prompt="x", lora="poet")
        assert [
            outcome.submission is not None
            for outcome in producer.submit_many(
                [{"model": name, "prompt": "x"} for name in ("poet", "sim", "painter", "lawyer")]
            )
        ] == [True, True, False, True]


def test_a_signature_names_model_and_adapter(redis_url: str, tmp_path: Path, adapters: dict[str, str]) -> None:
    """Celery's own senders know no other names, and put it into the model's queue themselves."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"model.lora_adapters": adapters}
    signature = generate(model="sim", prompt="x", sampling={"max_tokens": 3, "ignore_eos": True}, lora="poet")
    with fleet, fleet.celery() as app:
        answered = app.signature(dict(signature)).apply_async().get(timeout=60)
    assert answered["usage"]["completion_tokens"] == 3


def test_a_worker_without_the_adapter_says_so(redis_url: str, tmp_path: Path) -> None:
    """It was known once; the base model would answer something else."""
    with simulated(redis_url, tmp_path) as fleet, fleet.producer() as producer:
        with redis.Redis.from_url(redis_url) as client:
            record_adapters(client, "sim", ["poet"])
        job = producer.submit(model="poet", prompt="x")
        with pytest.raises(InferenceFailed, match="no adapter 'poet'") as failed:
            producer.result(job, timeout_seconds=60)
    assert failed.value.failure.code is FailureCode.MODEL_NOT_FOUND


def test_a_folder_without_an_adapter_ends_the_worker_with_its_setting(redis_url: str, tmp_path: Path) -> None:
    """No restart helps: exit code 78."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"model.lora_adapters": f"poet={tmp_path}"}
    fleet.start()
    assert fleet.process is not None
    assert fleet.process.wait(60) == 78
    assert f"model.lora_adapters: {tmp_path} (poet) holds no adapter_config.json" in fleet.log.read_text()


def test_a_name_is_a_models_an_aliass_or_an_adapters(
    operator: Producer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever comes first has it; it is free again when it is forgotten."""
    with redis.Redis.from_url(redis_url) as client:
        operator.set_alias("gpt-4o", "large")
        record_adapters(client, "large", ["poet", "gpt-4o", "other"])
        assert operator.aliases() == {"gpt-4o": "large", "poet": "large"}
        assert "adapter 'gpt-4o': 'large' has an adapter or alias of this name" in caplog.text
        assert "adapter 'other': a model has this name itself" in caplog.text
        record_adapters(client, "other", ["poet"])
        assert "adapter 'poet' is one of 'large' already" in caplog.text
        record_aliases(client, "other", ["poet"])
        assert operator.aliases()["poet"] == "large"
        with pytest.raises(InvalidRequest, match="fleet models unalias poet"):
            operator.set_alias("poet", "other")
        assert operator.forget_alias("poet")
        assert not operator.forget_alias("poet")
        operator.set_alias("poet", "other")
    assert operator.aliases() == {"gpt-4o": "large", "poet": "other"}
