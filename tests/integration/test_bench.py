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
BENCH_SECONDS = 1200
"""Three engines start one after the other, on a machine where other tests start theirs."""
pytestmark = pytest.mark.timeout(BENCH_SECONDS + 60)


def environment(folder: Path) -> dict[str, str]:
    """Temporary files where they are found again."""
    # One OpenMP thread per engine: several wait for each other in a busy loop when anything else wants a core.
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return os.environ | ENGINE_ENVIRONMENT | threads | {"TMPDIR": str(folder), "COLUMNS": "200"}


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


@pytest.mark.parametrize("turns", [(), ("--together",)], ids=["one after the other", "together"])
def test_throughput_gives_every_driver_the_same_jobs(tmp_path: Path, turns: Sequence[str]) -> None:
    """The engine called directly, the fleet, and the batch worker, with their ratios."""
    drivers = ("asyncllm", "fleet:worker.finisher_threads=1", "static-batch")
    report = bench(tmp_path, "throughput", *SIMULATED, *SMALL, "--jobs", "24", "--drivers", ",".join(drivers), *turns)
    found = rows(report)
    assert tuple(found) == drivers
    assert_tokens_are_those_asked_for(list(found.values()), jobs=24)
    assert set(report["comparisons"]) == {f"{name} ÷ asyncllm" for name in drivers[1:]}
    for row in found.values():
        values = [repeat["metrics"]["tokens_per_second"] for repeat in row["repeats"]]
        summary = row["summary"]["tokens_per_second"]
        assert (summary["min"], summary["max"]) == (min(values), max(values))
        assert summary["min"] < summary["mean"] < summary["max"]


@pytest.mark.vllm
@pytest.mark.slow
def test_throughput_runs_the_real_engine_in_every_driver(tmp_path: Path) -> None:
    """On the tiny model; one driver has no worker of its own, one no server, one both."""
    drivers = ("asyncllm", "llm", "fleet")
    arguments = ("--shape", "tiny", "--set", "engine.options.max_num_seqs=8", *SMALL, "--jobs", "12")
    found = rows(bench(tmp_path, "throughput", *arguments, "--drivers", ",".join(drivers)))
    assert tuple(found) == drivers
    assert_tokens_are_those_asked_for(list(found.values()), jobs=12)


def test_latency_takes_the_engine_called_directly_from_the_fleets(tmp_path: Path) -> None:
    """Both ways of asking; the first token comes no later than the result, and the hop is the difference."""
    engine = (*SIMULATED, "--set", "engine.options.seconds_per_token=0")
    report = bench(tmp_path, "latency", *engine, *SMALL, "--jobs", "10", "--rate", "50")
    found = rows(report)
    assert set(found) == {f"{name}, {way}" for name in ("asyncllm", "fleet") for way in ("one at a time", "50/s")}
    for row in found.values():
        for repeat in row["repeats"]:
            assert repeat["raw"]["output_tokens"] == [1] * 10
            times = zip(
                *(repeat["raw"][f"{what}_seconds"] for what in ("submitted", "first_token", "ended")), strict=True
            )
            assert all(submitted < first <= ended for submitted, first, ended in times)
    fleet, direct = (found[f"{name}, 50/s"]["repeats"] for name in ("fleet", "asyncllm"))
    hops = [
        f["metrics"]["first_token_ms_p50"] - d["metrics"]["first_token_ms_p50"]
        for f, d in zip(fleet, direct, strict=True)
    ]
    hop = report["comparisons"]["fleet less asyncllm, 50/s, first token p50 ms"]
    assert (hop["min"], hop["max"]) == (min(hops), max(hops))


def test_overhead_measures_cpu_and_slots(tmp_path: Path) -> None:
    """Of no-op jobs, and of jobs that fill 256 slots."""
    sizes = ("--repeats", "1", "--jobs", "60", "--rates", "900", "--seconds", "0.3")
    found = rows(bench(tmp_path, "overhead", *SMALL, *sizes))
    assert list(found) == ["fleet, no-op jobs", "fleet, 900 jobs/s"]
    [no_op], [filled] = (row["repeats"] for row in found.values())
    for repeat in (no_op, filled):
        assert repeat["metrics"]["jobs_per_second"] > 0
        assert repeat["metrics"]["server_cpu_ms_per_job"] > 0
    assert no_op["raw"]["output_tokens"] == [1] * 60
    assert 0 < filled["metrics"]["occupancy_percent"] <= 100
    assert len(filled["raw"]["output_tokens"]) == len(filled["raw"]["slot_spans"]) == 512 + 270


def test_enqueue_measures_queueing_and_waiting(tmp_path: Path) -> None:
    """Beside raw pushes of the same messages."""
    sizes = ("--jobs", "300", "--single-submits", "50", "--callers", "100")
    report = bench(tmp_path, "enqueue", *SMALL, *sizes)
    found = rows(report)
    jobs = {"raw LPUSH": 300, "bulk": 300, "single submit": 50, "100 callers": 100, "results": 100, "map": 100}
    assert {name: [repeat["metrics"]["jobs"] for repeat in row["repeats"]] for name, row in found.items()} == {
        name: [count, count] for name, count in jobs.items()
    }
    for row in found.values():
        assert all(repeat["metrics"]["server_cpu_ms_per_job"] > 0 for repeat in row["repeats"])
    assert len(found["single submit"]["repeats"][0]["raw"]["call_ms"]) == 50
    assert set(report["comparisons"]) == {"bulk ÷ raw LPUSH, jobs/s"}


def test_mixed_compares_interactive_jobs_under_a_flood_with_the_same_alone(tmp_path: Path) -> None:
    """In every driver that has a way to overtake, and in the one that has none."""
    drivers = ("asyncllm", "fleet", "celery-threads")
    flood = ("--repeats", "1", "--batch-jobs", "120", "--output-tokens", "100:120", "--jobs", "8", "--rate", "40")
    report = bench(tmp_path, "mixed", *SIMULATED, *SMALL, *flood, "--drivers", ",".join(drivers))
    found = rows(report)
    assert tuple(found) == drivers
    for row in found.values():
        for repeat in row["repeats"]:
            assert 0 < repeat["metrics"]["interactive_jobs_under_flood"] <= 8
            assert repeat["raw"]["alone_output_tokens"] == [1] * 8
            assert repeat["raw"]["flooded_output_tokens"][120:] == [1] * 8
            assert all(100 <= tokens <= 120 for tokens in repeat["raw"]["flooded_output_tokens"][:120])
    assert len(report["comparisons"]) == 9


def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path) -> None:
    """While the fleet works on jobs that take minutes."""
    slow = ("--set", "engine.options.seconds_per_token=0.25", "--output-tokens", "400", "--warm-up-jobs", "0")
    # What runs beside others in a shell ignores Ctrl-C, and so would what it starts.
    heeding = ["env", "--default-signal=INT"]
    command = [*heeding, *FLEET, "bench", "throughput", *SIMULATED, *slow, "--drivers", "fleet", "--jobs", "4"]
    log = tmp_path / "output"
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=output, stderr=output)
    try:
        eventually(lambda: "repeat 1" in log.read_text(), what="the pass has begun", seconds=60)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(100) != 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "simulated", "--drivers", "asyncllm,fleed"), "no driver 'fleed': asyncllm, "),
        (("--engine", "simulated", "--shape", "tiny"), "leave --model and --shape out"),
        (("--shape", "9b"), "no shape '9b': tiny, 0.6b, 8b"),
        (("--engine", "simulated", "--prompt-words", "9:1"), "'9:1'"),
        (("--engine", "simulated", "--set", "engine.options.max_seqs=3", "--drivers", "asyncllm"), "max_num_seqs"),
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
