"""``fleet demo`` and ``fleet up`` as a newcomer runs them: a whole fleet, real work, and nothing left behind."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.running import ENGINE_START_SECONDS, FLEET, page_of
from tests.waiting import eventually, free_port

SIMULATED = ("--set", "engine.kind=simulated", "--set", "worker.gpus=none")


def own_ports() -> list[str]:
    """Ports of this test alone: others start whole fleets beside it."""
    return [
        "--set",
        f"metrics.port={free_port()}",
        "--set",
        f"flower.port={free_port()}",
        "--set",
        f"gateway.port={free_port()}",
    ]


def environment(folder: Path) -> dict[str, str]:
    """A newcomer's environment: no settings, an empty home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return kept | {"HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in ``folder``."""
    processes = [process.info for process in psutil.process_iter(["cwd", "cmdline"])]
    here = [info for info in processes if info["cwd"] and Path(info["cwd"]).is_relative_to(folder)]
    return [" ".join(info["cmdline"] or ()) for info in here]


@pytest.mark.vllm
def test_the_demo_answers_every_section_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Two sections and the chat turn, on vLLM with the tiny model that it makes itself."""
    (tmp_path / "NOTES.md").write_text("# Queues\nThey keep work in order.\n\n## Workers\nThey take what they can.\n")
    done = subprocess.run(
        [*FLEET, "demo", *own_ports()],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=ENGINE_START_SECONDS + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    for shown in ("✓ NOTES.md: Queues", "✓ NOTES.md: Workers", "✓ chat", "Flower   http://", "/metrics"):
        assert shown in done.stdout
    assert re.search(
        r"3 of 3 jobs answered in [\d.]+ s: \d+ prompt tokens, \d+ generated, [\d,]+ tokens/s", done.stdout
    )
    assert left_behind(tmp_path) == []


def test_up_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """Server, worker, gateway and Flower come up together, serve a job from the command line, and go together."""
    command = [*FLEET, "up", "--model", "sim", *SIMULATED, *own_ports()]
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=output, stderr=output)
    try:
        said = [re.compile(rf"{name}(http\S+|redis\S+)") for name in ("FLEET_REDIS_URL=", "Flower +", "OpenAI +")]
        eventually(lambda: all(line.search(log.read_text()) for line in said), what="the fleet is up", seconds=60)
        address, flower, openai = (line.search(log.read_text()) for line in said)
        assert address is not None
        assert flower is not None
        assert openai is not None
        eventually(lambda: '"sim"' in page_of(f"{openai[1]}/models")[1], what="the gateway knows the model", seconds=60)
        eventually(lambda: page_of(flower[1])[0] == 200, what="Flower answers", seconds=60)
        submitted = subprocess.run(
            [*FLEET, "submit", "--model", "sim", "--prompt", "hello", "--max-tokens", "3", "--wait"],
            env=environment(tmp_path) | {"FLEET_REDIS_URL": address[1]},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert len(submitted.stdout.split()) == 3
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_local_fleet_that_cannot_start_says_why(tmp_path: Path, command: str) -> None:
    """The worker's own last words, and a code that is not 0; nothing is left running."""
    done = subprocess.run(
        [*FLEET, command, "--model", "sim", *SIMULATED, *own_ports(), "--set", "engine.options.start_fault=fails"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 70
    assert "the engine did not start: the simulated engine was told to fail" in done.stderr
    assert left_behind(tmp_path) == []
