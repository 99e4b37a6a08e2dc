"""``fleet bench`` as its user runs it: every figure is there, they agree, and nothing is left running."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running import ENGINE_ENVIRONMENT, FLEET
from tests.waiting import eventually

SIMULATED = ("--engine", "simulated", "--set", "engine.options.max_num_seqs=8")
SMALL = ("--prompt-words", "3:6", "--output-tokens", "2:5", "--warm-up-jobs", "4", "--repeats", "2")
BENCH_SECONDS = 240


def environment(folder: Path) -> dict[str, str]:
    """Temporary files where they are found again."""
    return os.environ | ENGINE_ENVIRONMENT | {"TMPDIR": str(folder), "COLUMNS": "200"}


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in ``folder``, or name it."""
    found = [process.info for process in psutil.process_iter(["cwd", "cmdline"])]
    return [line for info in found if str(folder) in (line := f"{info['cwd']} {' '.join(info['cmdline'] or ())}")]


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run ``fleet bench`` and read its JSON."""
    output = folder / "report.json"
    done = subprocess.run(
        [*FLEET, "bench", *arguments, "--json", str(output)],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BENCH_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert left_behind(folder) == []
    report: dict[str, Any] = json.loads(output.read_text())
    assert report["command"][1:3] == ["bench", arguments[0]]
    for part in ("date", "hardware", "versions", "target", "parameters"):
        assert report[part], part
    return report


def rows(report: dict[str, Any]) -> dict[str, Any]:
    """Rows by name; every percentile is where it belongs."""
    for row in report["rows"]:
        for repeat in row["repeats"]:
            assert_ordered(repeat["metrics"])
    return {row["name"]: row for row in report["rows"]}


def assert_ordered(metrics: dict[str, float]) -> None:
    """Each distribution's figures rise from min to max, and its mean lies between them."""
    for name in [name.removesuffix("_p50") for name in metrics if name.endswith("_p50")]:
        ordered = [metrics[f"{name}_{cut}"] for cut in ("min", "p50", "p95", "p99", "max")]
        assert ordered == sorted(ordered), name
        assert ordered[0] <= metrics[f"{name}_mean"] <= ordered[-1], name


def assert_tokens_are_those_asked_for(drivers: Sequence[dict[str, Any]], jobs: int) -> None:
    """Every driver answered every job of every repeat with all of its tokens: they had the same jobs."""
    for number in range(2):
        repeats = [row["repeats"][number] for row in drivers]
        assert [repeat["metrics"]["jobs"] for repeat in repeats] == [jobs] * len(drivers)
        assert len({tuple(repeat["raw"]["output_tokens"]) for repeat in repeats}) == 1
        assert len({tuple(repeat["raw"]["prompt_tokens"]) for repeat in repeats}) == 1
        for repeat in repeats:
            assert repeat["metrics"]["output_tokens"] == sum(repeat["raw"]["output_tokens"])


def test_throughput_gives_every_driver_the_same_jobs(tmp_path: Path) -> None:
    """The engine called directly, the fleet, and the batch worker, with their ratios."""
    drivers = ("asyncllm", "fleet", "static-batch")
    report = bench(tmp_path, "throughput", *SIMULATED, *SMALL, "--jobs", "24", "--drivers", ",".join(drivers))
    found = rows(report)
    assert tuple(found) == drivers
    assert_tokens_are_those_asked_for(list(found.values()), jobs=24)
    assert set(report["ratios"]) == {"fleet ÷ asyncllm", "static-batch ÷ asyncllm"}
    for row in found.values():
        values = [repeat["metrics"]["tokens_per_second"] for repeat in row["repeats"]]
        summary = row["summary"]["tokens_per_second"]
        assert (summary["min"], summary["max"]) == (min(values), max(values))
        assert summary["min"] < summary["mean"] < summary["max"]


@pytest.mark.vllm
def test_throughput_runs_the_real_engine_in_every_driver(tmp_path: Path) -> None:
    """On the tiny model."""
    drivers = ("asyncllm", "fleet")
    arguments = ("--shape", "tiny", "--set", "engine.options.max_num_seqs=8", *SMALL, "--jobs", "12")
    found = rows(bench(tmp_path, "throughput", *arguments, "--drivers", ",".join(drivers)))
    assert tuple(found) == drivers
    assert_tokens_are_those_asked_for(list(found.values()), jobs=12)


def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path) -> None:
    """While the fleet works on jobs that take minutes."""
    slow = ("--set", "engine.options.seconds_per_token=1", "--output-tokens", "400", "--warm-up-jobs", "0")
    command = [*FLEET, "bench", "throughput", *SIMULATED, *slow, "--drivers", "fleet", "--jobs", "4"]
    log = tmp_path / "output"
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=output, stderr=output)
    try:
        eventually(lambda: "repeat 1" in log.read_text(), what="the pass has begun", seconds=60)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) != 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--drivers", "asyncllm,fleed"), "no driver 'fleed': asyncllm, "),
        (("--engine", "simulated", "--shape", "tiny"), "leave --model and --shape out"),
        (("--shape", "9b"), "no shape '9b': tiny, 0.6b, 8b"),
        (("--prompt-words", "9:1"), "'9:1'"),
        (("--engine", "simulated", "--set", "engine.options.slots=3", "--drivers", "asyncllm"), "max_num_seqs"),
    ],
)
def test_a_bench_that_cannot_run_says_what_to_change(tmp_path: Path, arguments: Sequence[str], said: str) -> None:
    """On standard error or in the row's note, and the exit code is not 0."""
    done = subprocess.run(
        [*FLEET, "bench", "throughput", *arguments],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BENCH_SECONDS,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert left_behind(tmp_path) == []
