"""What do several engines on one device make together? Bare AsyncLLM processes side by side; no queue, no Redis.

``python -m benchmarks.two_engines --shape 0.6b --engines 1 2 3 --output two-engines.json``

Starts as many engines as the largest number asked for, each with its share of the memory, then lets 1, 2, 3 … of them
work at the same time over fresh random prompts and measures tokens/s, CPU time per process and how busy the GPU was.
``--environments`` repeats it: ``default`` (as vLLM comes) and ``omp1`` (``OMP_NUM_THREADS=1``). ``--extras`` adds to
each number of engines a phase ``pinned`` (each on cores of its own), ``stream`` (an output per token) or ``refill-16``
(a full engine gets its next jobs once 16 of its slots are free, and not one by one). Prompts are token ids, so no
tokenizer is at work; with ``--text`` they are words. Works on the CPU build with ``--shape tiny``.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.bare_engine import Phase
from benchmarks.device_load import DeviceLoad, device_memory_bytes, hardware
from workers.bench.shapes import model_folder

ENVIRONMENTS: Final[dict[str, dict[str, str]]] = {"default": {}, "omp1": {"OMP_NUM_THREADS": "1"}}
TOTAL_SHARE: Final = 0.90
"""Of the device's memory, over all engines."""
ACTIVATIONS_BYTES: Final = 8 * 1024**3
"""Kept free per engine for CUDA's context, graphs and activations."""
WEIGHTS_BYTES: Final = {"0.6b": 2 * 1024**3, "8b": 17 * 1024**3}
LEAD_SECONDS: Final = 0.5
"""Between the order and the common start, so that every process has read it."""
STOP_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """What is measured, from the command line."""

    shape: str
    engines: tuple[int, ...]
    extras: tuple[str, ...]
    ramp_seconds: float
    measured_seconds: float
    as_text: bool
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    max_num_seqs: int
    engine_options: dict[str, Any]

    @property
    def most(self) -> int:
        """Engines that are started."""
        return max(self.engines)

    def options(self, shape_options: dict[str, Any], memory_bytes: int | None) -> dict[str, Any]:
        """Engine options of each of the engines; the KV cache is explicit, so that they may start at the same time."""
        options = shape_options | {"max_num_seqs": self.max_num_seqs, "max_model_len": 2048} | self.engine_options
        if memory_bytes is None:
            return options
        share_bytes = int(memory_bytes * TOTAL_SHARE / self.most)
        return options | {
            "gpu_memory_utilization": round(TOTAL_SHARE / self.most, 3),
            "kv_cache_memory_bytes": share_bytes - WEIGHTS_BYTES[self.shape] - ACTIVATIONS_BYTES,
        }


class EngineProcess:
    """One :mod:`benchmarks.bare_engine`."""

    def __init__(self, number: int, environ: dict[str, str], log: Path) -> None:
        self.number = number
        self._log = log
        command = [sys.executable, "-m", "benchmarks.bare_engine"]
        with log.open("wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=os.environ | environ, text=True
            )

    def tell(self, line: dict[str, Any]) -> None:
        """Send one line."""
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for one line.

        Raises:
            RuntimeError: the process ended; the message has its last words.
        """
        assert self._process.stdout is not None  # noqa: S101 - opened with PIPE
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"engine {self.number} ended:\n{self._log.read_text(errors='replace')[-3000:]}")
        return dict(json.loads(line))

    def keep_to(self, cores: Sequence[int]) -> None:
        """Let every thread of its processes run on these cores only."""
        family = psutil.Process(self._process.pid)
        for process in [family, *family.children(recursive=True)]:
            for thread in process.threads():
                os.sched_setaffinity(thread.id, cores)

    def stop(self) -> None:
        """End it and what it started."""
        family = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            if process.is_running():
                process.kill()


def cores_of(engine: int, count: int) -> list[int]:
    """This engine's part of the cores, where each is to have its own."""
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // count)
    return [cores[at % len(cores)] for at in range(engine * size, (engine + 1) * size)]


@contextmanager
def running(plan: Plan, environ: dict[str, str], scratch: Path) -> Iterator[tuple[list[EngineProcess], list[Any]]]:
    """All engines, ready. The first starts alone, so that it alone compiles; the others find that in the cache."""
    memory_bytes = device_memory_bytes()
    folder, options = model_folder(plan.shape, scratch)
    config = {"model": str(folder), "options": plan.options(options, memory_bytes)}
    with ExitStack() as stack:
        engines, ready = [], []
        for number in range(plan.most):
            engine = EngineProcess(number, environ, scratch / f"engine-{number}.log")
            stack.callback(engine.stop)
            engines.append(engine)
            # vLLM's CPU build binds its threads at the start: two engines on the same cores would wait for each other.
            cores = cores_of(number, plan.most) if memory_bytes is None else []
            engine.tell(config | {"engine": number, "cores": cores})
            if number == 0:
                ready.append(engine.answer())
        ready += [engine.answer() for engine in engines[1:]]
        yield engines, ready


def measure(plan: Plan, engines: list[EngineProcess], count: int, kind: str) -> dict[str, Any]:
    """One phase: the first ``count`` engines work, the others idle."""
    cores = sorted(os.sched_getaffinity(0))
    for engine in engines:
        engine.keep_to(cores_of(engine.number, count) if kind == "pinned" and engine.number < count else cores)
    phase = Phase(
        number=time.monotonic_ns(),
        is_active=True,
        start_at=time.monotonic() + LEAD_SECONDS,
        ramp_seconds=plan.ramp_seconds,
        measured_seconds=plan.measured_seconds,
        streams=kind == "stream",
        refill_group=int(kind.removeprefix("refill-")) if kind.startswith("refill-") else 0,
        as_text=plan.as_text,
        prompt_tokens=plan.prompt_tokens,
        output_tokens=plan.output_tokens,
    )
    for engine in engines:
        engine.tell(dataclasses.asdict(phase) | {"is_active": engine.number < count})
    with DeviceLoad(phase.start_at + plan.ramp_seconds, plan.measured_seconds) as load:
        answers = [engine.answer() for engine in engines]
    active = answers[:count]
    return {
        "engines": count,
        "kind": kind,
        "tokens_per_second": sum(answer["tokens_per_second"] for answer in active),
        **load.seen(),
        "each": active,
    }


def measure_all(plan: Plan, environment: str) -> dict[str, Any]:
    """Every phase in one environment."""
    with tempfile.TemporaryDirectory() as scratch, running(plan, ENVIRONMENTS[environment], Path(scratch)) as started:
        engines, ready = started
        phases = []
        for count in plan.engines:
            for kind in ("plain", *plan.extras):
                phases.append(measure(plan, engines, count, kind))
                print(json.dumps({"environment": environment} | phases[-1]), flush=True)
    return {"environment": environment, "ready": ready, "phases": phases}


def extra(word: str) -> str:
    """A kind of phase beside the plain one."""
    if not re.fullmatch(r"pinned|stream|refill-\d+", word):
        raise argparse.ArgumentTypeError(f"{word!r} is none of pinned, stream and refill-JOBS")
    return word


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "0.6b", "8b"), default="tiny")
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--environments", choices=list(ENVIRONMENTS), nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--extras", type=extra, nargs="*", default=[])
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--engine-options", type=json.loads, default={})
    parser.add_argument("--ramp-seconds", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--prompt-tokens", type=int, nargs=2, default=[50, 300])
    parser.add_argument("--output-tokens", type=int, nargs=2, default=[32, 512])
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    plan = Plan(
        shape=given.shape,
        engines=tuple(given.engines),
        extras=tuple(given.extras),
        ramp_seconds=given.ramp_seconds,
        measured_seconds=given.seconds,
        as_text=given.text,
        prompt_tokens=tuple(given.prompt_tokens),
        output_tokens=tuple(given.output_tokens),
        max_num_seqs=given.max_num_seqs,
        engine_options=given.engine_options,
    )
    report = {"hardware": hardware(), "plan": dataclasses.asdict(plan), "runs": []}
    for environment in given.environments:
        report["runs"].append(measure_all(plan, environment))
    if given.output:
        given.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
