"""What the doctor makes of a model's folder and of the host's limits, on real files."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from producer.doctor import Finding, Level
from workers.doctor.host_findings import host_findings, port_findings
from workers.doctor.model_findings import model_findings
from workers.doctor.nvidia import Gpu
from workers.doctor.plan import GIB, Plan
from workers.models.folder import faults, safetensors_fault, weights_bytes
from workers.models.tiny_adapter import make_tiny_adapter

MIB = 1024**2


def write_weights(path: Path, size_bytes: int) -> None:
    """A safetensors file with one tensor of so many bytes, which take no room on the disk."""
    head = json.dumps({"w": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + size_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two shards of 600 MiB."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        write_weights(tmp_path / name, 600 * MIB)
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def by_subject(plan: Plan, gpus: list[Gpu] | None = None) -> dict[str, Finding]:
    """The model's findings."""
    return {finding.subject: finding for finding in model_findings(plan, gpus)}


def gpu(total_bytes: int) -> Gpu:
    """A GPU with so much memory."""
    return Gpu("0", "GPU-aaaa", "GPU", "580.1", total_bytes, 0, (9, 0))


def test_a_whole_folder_has_no_faults(folder: Path) -> None:
    """And its weights are what the index names."""
    assert faults(folder) == []
    assert weights_bytes(folder) == pytest.approx(1200 * MIB, rel=1e-3)


def test_the_tiny_model_is_whole(tiny_model: Path) -> None:
    """The one that we make ourselves."""
    assert faults(tiny_model) == []


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors"])
def test_what_is_missing_is_named(folder: Path, missing: str) -> None:
    """One sentence for each, and the doctor says how to mend it."""
    (folder / missing).unlink()
    [fault] = faults(folder)
    assert missing in fault
    found = by_subject(Plan(model=str(folder)))["model"]
    assert (found.level, "copy it anew" in found.sentence) == (Level.REFUSED, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no safetensors file"),
        (b"\xff" * 100, "is no safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "has a head that cannot be read"),
        (b'\x3c\0\0\0\0\0\0\0{"w":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}       12345', "its head says 77"),
    ],
)
def test_a_file_that_was_cut_off_is_known_by_its_head(tmp_path: Path, content: bytes, words: str) -> None:
    """Without reading the tensors."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert words in str(safetensors_fault(file))


@pytest.mark.parametrize(
    ("gpu_mib", "options", "engines_on_device", "level"),
    [
        (80_000, {}, 1, Level.OK),
        (1_400, {}, 1, Level.WARNING),
        (1_200, {}, 1, Level.REFUSED),
        (1_200, {"quantization": "fp8"}, 1, Level.OK),
        (2_400, {}, 2, Level.REFUSED),
        (4_000, {"gpu_memory_utilization": 0.2}, 1, Level.REFUSED),
    ],
)
def test_weights_are_held_against_the_part_of_the_gpu_that_they_get(
    folder: Path, gpu_mib: int, options: dict[str, object], engines_on_device: int, level: Level
) -> None:
    """By utilization, engines on the GPU, and what is halved while it loads."""
    plan = Plan(
        str(folder), options=options, engines=(("0",),) * engines_on_device, engines_on_device=engines_on_device
    )
    found = by_subject(plan, [gpu(gpu_mib * MIB)])["memory"]
    assert found.level is level, found
    assert ("tensor_parallel_size" in found.sentence) == (level is not Level.OK)


def test_several_gpus_share_the_weights(folder: Path) -> None:
    """Half on each of two."""
    gpus = [gpu(1_000 * MIB), Gpu("1", "GPU-bbbb", "GPU", "580.1", 1_000 * MIB, 0, (9, 0))]
    assert by_subject(Plan(str(folder), engines=(("0",),)), gpus)["memory"].level is Level.REFUSED
    assert by_subject(Plan(str(folder), engines=(("0", "1"),)), gpus)["memory"].level is Level.OK


@pytest.mark.parametrize(
    ("options", "level"),
    [({}, None), ({"quantization": "awq_marlin"}, Level.OK), ({"quantization": "fp8"}, Level.REFUSED)],
)
def test_a_model_that_is_quantized_already_is_not_quantized_again(
    folder: Path, options: dict[str, object], level: Level | None
) -> None:
    """Two methods at once are refused by vLLM; the finding names what to set, and weights count as they are stored."""
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    found = by_subject(Plan(str(folder), options=options, engines=(("0",),)), [gpu(80_000 * MIB)])
    assert ("quantization" in found) == (level is not None)
    assert level is None or found["quantization"].level is level
    assert found["memory"].sentence.startswith("1.2 GiB of weights")


def test_adapters_are_looked_for_in_their_folders(folder: Path, tmp_path: Path) -> None:
    """Those that are there are named; one that is not fails."""
    there = make_tiny_adapter(tmp_path / "poet", seed=1)
    good = by_subject(Plan(str(folder), adapters={"poet": str(there)}))["adapters"]
    assert (good.level, good.sentence) == (Level.OK, "poet; room for rank 8")
    bad = by_subject(Plan(str(folder), adapters={"lawyer": str(tmp_path / "none")}))["adapters"]
    assert (bad.level, "(lawyer) holds no adapter_config.json" in bad.sentence) == (Level.REFUSED, True)


def test_a_cpu_has_the_memory_that_is_free(folder: Path) -> None:
    """A model of a mebibyte fits, one of a pebibyte does not."""
    index = folder / "model.safetensors.index.json"
    write_weights(folder / "model.safetensors", MIB)
    index.unlink()
    for shard in folder.glob("model-*"):
        shard.unlink()
    assert by_subject(Plan(str(folder)))["memory"].level is Level.OK
    assert by_subject(Plan(str(folder), engines_on_device=2**30))["memory"].level is Level.REFUSED


def test_a_model_that_is_not_here_is_doubtful_and_none_is_fine() -> None:
    """The first start fetches it; there is a command that does so before."""
    found = by_subject(Plan(model="acme/none-of-this-name"))["model"]
    assert (found.level, "fleet models preload" in found.sentence) == (Level.WARNING, True)
    assert by_subject(Plan())["model"].level is Level.OK


def test_a_port_that_is_taken_is_named_with_its_setting() -> None:
    """A warning, since it may be this fleet that runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        [taken] = port_findings(Plan(ports={"metrics.port": ("127.0.0.1", port)}))
    assert taken.level is Level.WARNING
    assert f"127.0.0.1:{port}" in taken.sentence
    assert taken.sentence.endswith("set metrics.port")
    [free] = port_findings(Plan(ports={"metrics.port": ("127.0.0.1", port)}))
    assert free.level is Level.OK


@pytest.mark.parametrize(("engines", "level"), [(1, Level.OK), (4096, Level.REFUSED)])
def test_engines_on_the_cpu_need_a_core_each(engines: int, level: Level) -> None:
    """This machine's own cores."""
    found = {finding.subject: finding for finding in host_findings(Plan(engines=((),) * engines))}
    assert found["cores"].level is level
    assert found["open files"].level in {Level.OK, Level.WARNING}


def test_a_host_without_shared_memory_is_refused(tmp_path: Path) -> None:
    """And one with a large one is not."""
    [missing, *_] = host_findings(Plan(), tmp_path / "none")
    assert missing.level is Level.REFUSED
    [there, *_] = host_findings(Plan(), tmp_path)
    assert there.subject == "shared memory"
    assert there.level is (Level.OK if shutil.disk_usage(tmp_path).total >= GIB else Level.WARNING)
