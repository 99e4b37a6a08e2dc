"""What the settings make of the engine: its options, and how its sequences are divided."""

from types import SimpleNamespace
from typing import Any

import pytest

from config.errors import SettingsError
from config.settings import EngineSettings, ModelSettings, Settings, WorkerSettings
from workers.engine.base import Capacity
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine
from workers.from_settings import batch_limits, common_slots, concurrency, consumption, make_engine, reserved_slots
from workers.transport.appetite import Appetite


def settings(kind: str = "simulated", reserve: int = 4, **options: object) -> Settings:
    """With these engine options; nothing waits inside the engine beyond one job."""
    return Settings(
        engine=EngineSettings(kind=kind, options=options),
        worker=WorkerSettings(interactive_reserve=reserve, concurrency_headroom=0.0),
    )


def of_size(max_num_seqs: int) -> Any:  # noqa: ANN401 - the part of an engine that is looked at
    """An engine that runs so many sequences."""
    return SimpleNamespace(capacity=lambda: Capacity(max_num_seqs, 512))


def options_of(given: Settings) -> Any:  # noqa: ANN401 - vLLM's own option values
    """The options that the engine would be started with."""
    engine = make_engine(given)
    assert isinstance(engine, VllmEngine | SimulatedEngine)
    return engine._config.options


@pytest.mark.parametrize(
    ("asked", "reserve", "started"),
    [
        (256, 4, 260),
        (256, 0, 256),
        (256, 64, 292),  # 36 of 292: an eighth
        (28, 4, 32),
        (27, 4, 30),
        (8, 4, 9),
        (7, 4, 8),
        (6, 4, 6),  # fewer than eight: none
        (1, 4, 1),
    ],
)
def test_sequences_that_were_asked_for_stay_with_the_other_lanes(asked: int, reserve: int, started: int) -> None:
    """The reserve comes on top, and the running engine's size says again how much it is."""
    given = settings(reserve=reserve, max_num_seqs=asked)
    assert options_of(given)["max_num_seqs"] == started
    assert common_slots(given, of_size(started)) == asked
    assert reserved_slots(given, of_size(started)) == started - asked


def test_on_a_cpu_a_slot_of_adapters_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's own number too must leave one: the CPU build would answer wrongly without saying so."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    model = ModelSettings(name="m", lora_adapters="a=/a,b=/b")
    assert options_of(settings("vllm").model_copy(update={"model": model}))["max_loras"] == 3
    with pytest.raises(SettingsError, match="max_loras 2 with 2 adapters"):
        make_engine(settings("vllm", max_loras=2).model_copy(update={"model": model}))


@pytest.mark.parametrize(("lanes", "reserved"), [("interactive", 32), ("others", 0)])
def test_a_worker_of_some_lanes_has_all_its_sequences_for_them(lanes: Any, reserved: int) -> None:  # noqa: ANN401 - the settings check it
    """Nothing is added to what was asked for, and nothing is kept free."""
    given = settings(max_num_seqs=32)
    given = given.model_copy(update={"worker": given.worker.model_copy(update={"lanes": lanes})})
    assert options_of(given)["max_num_seqs"] == 32
    assert reserved_slots(given, of_size(32)) == reserved
    taken = consumption(given, "w@host", of_size(32))
    assert taken.reserved_slots == (taken.slots if lanes == "interactive" else 0)
    assert taken.takes_urgent is (lanes == "interactive")


@pytest.mark.parametrize(("size", "reserved"), [(1024, 4), (256, 4), (31, 3), (8, 1), (7, 0), (1, 0)])
def test_the_reserve_is_part_of_an_engines_own_default(size: int, reserved: int) -> None:
    """Nobody said how many sequences: vLLM's number is not changed."""
    given = settings()
    assert "max_num_seqs" not in options_of(given)
    assert reserved_slots(given, of_size(size)) == reserved
    assert common_slots(given, of_size(size)) == size - reserved


@pytest.mark.parametrize("asked", ["many", 2.5, None, 0, -3])
def test_no_number_of_sequences_is_left_for_the_engine_to_refuse(asked: object) -> None:
    """Its error names the value that was set."""
    assert options_of(settings(max_num_seqs=asked))["max_num_seqs"] == asked


def test_the_pool_holds_both_kinds_of_slots_and_the_headroom() -> None:
    """Unless the operator says how many jobs it holds."""
    given = Settings(worker=WorkerSettings(concurrency_headroom=0.1))
    assert concurrency(given, of_size(104)) == 100 + 10 + 4
    assert concurrency(Settings(worker=WorkerSettings(concurrency=3)), of_size(104)) == 3


@pytest.mark.parametrize(("visible", "options"), [("", {}), ("0", {}), ("", {"scheduling_policy": "fcfs"})])
def test_vllm_schedules_by_priority_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, visible: str, options: dict[str, object]
) -> None:
    """On every device."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    policy = options_of(settings("vllm", **options))["scheduling_policy"]
    assert policy == options.get("scheduling_policy", "priority")


@pytest.mark.parametrize(("asked", "group"), [(0, 1), (5, 5)])
async def test_groups_are_the_settings_and_the_engines(asked: int, group: int) -> None:
    """The setting reaches the engine, and the pool takes the size that the engine made of it."""
    given = Settings(
        engine=EngineSettings(kind="simulated"), worker=WorkerSettings(refill_jobs=asked, refill_max_wait_ms=250)
    )
    engine = make_engine(given)
    await engine.start()
    appetite = Appetite(kv_cache_tokens=1000)
    refill = batch_limits(given, engine, appetite).refill
    await engine.close()
    assert (refill.jobs, refill.max_wait_seconds, refill.is_memory_full()) == (group, 0.25, False)
    appetite.met_full_memory()
    assert refill.is_memory_full()
