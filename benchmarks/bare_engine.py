"""One bare AsyncLLM in a process of its own, driven line by line: the child of :mod:`benchmarks.two_engines`.

Reads JSON lines on stdin: first the configuration, then a :class:`Phase` in each; answers each with a line on stdout
(what vLLM prints goes to stderr). Ends with its stdin.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import psutil

from producer import GenerationRequest, SamplingOptions
from workers.bench.load import WORDS
from workers.engine.base import EngineConfig
from workers.engine.entrance import Entrance, Patience
from workers.engine.vllm_launch import launch
from workers.engine.vllm_requests import rendered, sampling_params

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

WINDOW_PER_SLOT: Final = 1.25
"""Jobs in flight per engine slot, so that a slot that frees finds the next job waiting inside the engine."""
PATIENCE: Final = Patience(60.0)
"""Longer than any phase: a group enters when it is complete."""
TOKEN_IDS: Final = (3, 250)
"""Ids that every shape's vocabulary has and that end nothing."""


@dataclass(frozen=True)
class Phase:
    """One measurement: a closed loop of greedy jobs with fresh random prompts."""

    number: int
    is_active: bool
    """False: this engine idles while the others work."""
    start_at: float
    """On the machine's monotonic clock, the same for all processes."""
    ramp_seconds: float
    measured_seconds: float
    streams: bool
    """True: every token becomes an output of its own, as for streamed jobs; False: one output per job."""
    refill_group: int
    """Jobs that enter a full engine together, once so many of its slots are free; 0: they queue in the engine."""
    as_text: bool
    """True: prompts are words, so that the engine's tokenizer is at work; as many words as they would have tokens."""
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """Counters at one moment."""

    at: float
    generated_tokens: float
    preemptions: float
    steps: float
    small_steps: float
    """Of no more tokens than the engine has slots: hardly any of them has a prompt in it."""
    front_end_cpu_seconds: float
    core_cpu_seconds: float

    @classmethod
    def now(cls, slots: int) -> "Reading":
        """Read this process' counters and those of the processes that vLLM started."""
        return cls(
            time.monotonic(),
            counter("vllm:generation_tokens_total"),
            counter("vllm:num_preemptions_total"),
            counter("vllm:iteration_tokens_total_count"),
            counter("vllm:iteration_tokens_total_bucket", le=f"{float(slots)}"),
            cpu_seconds(psutil.Process()),
            sum(cpu_seconds(child) for child in psutil.Process().children(recursive=True)),
        )


def counter(name: str, **labels: str) -> float:
    """A counter of vLLM's own with these labels, over all its others."""
    from prometheus_client import REGISTRY

    samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of one process, all its threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Load:
    """A closed loop over one engine."""

    def __init__(self, llm: "AsyncLLM", phase: Phase, engine: int) -> None:
        from vllm.sampling_params import RequestOutputKind

        self._llm = llm
        self._phase = phase
        self._draw = random.Random(f"{os.getpid()} {phase.number} {engine}")  # noqa: S311 - prompts, not secrets
        self._output_kind = RequestOutputKind.DELTA if phase.streams else RequestOutputKind.FINAL_ONLY
        self._sent = 0

    async def run(self) -> tuple[Reading, Reading]:
        """The counters at both ends of the measured time."""
        slots = self._llm.vllm_config.scheduler_config.max_num_seqs
        await asyncio.sleep(self._phase.start_at - time.monotonic())
        count, group = int(slots * WINDOW_PER_SLOT), self._phase.refill_group
        seats, entrance = asyncio.Semaphore(slots if group else count), Entrance(max(1, group))
        lanes = [asyncio.create_task(self._lane(seats, entrance)) for _ in range(count)]
        await asyncio.sleep(self._phase.ramp_seconds)
        first = Reading.now(slots)
        await asyncio.sleep(self._phase.measured_seconds)
        last = Reading.now(slots)
        broken = [lane.exception() for lane in lanes if lane.done()]
        for lane in lanes:
            lane.cancel()  # vLLM takes a cancelled consumer for an abort
        await asyncio.gather(*lanes, return_exceptions=True)
        if broken:
            raise RuntimeError(f"{len(broken)} of {len(lanes)} loops ended early: {broken[0]!r}") from broken[0]
        return first, last

    async def _lane(self, seats: asyncio.Semaphore, entrance: Entrance) -> None:
        while True:
            request = self._request()
            self._sent += 1
            prompt = await rendered(self._llm, request)
            params = sampling_params(request)
            params.output_kind = self._output_kind
            async with seats:
                await entrance.enter(PATIENCE)
                async for _ in self._llm.generate(prompt, params, f"{self._phase.number}-{self._sent}"):
                    pass

    def _request(self) -> GenerationRequest:
        size = self._draw.randint(*self._phase.prompt_tokens)
        sampling = SamplingOptions(
            temperature=0.0, ignore_eos=True, max_tokens=self._draw.randint(*self._phase.output_tokens)
        )
        if self._phase.as_text:
            return GenerationRequest(model="m", prompt=" ".join(self._draw.choices(WORDS, k=size)), sampling=sampling)
        ids = tuple(self._draw.choices(range(*TOKEN_IDS), k=size))
        return GenerationRequest(model="m", prompt_token_ids=ids, sampling=sampling)


def measured(first: Reading, last: Reading) -> dict[str, Any]:
    """Rates between two readings."""
    seconds = last.at - first.at
    return {
        "tokens_per_second": round((last.generated_tokens - first.generated_tokens) / seconds),
        "preemptions": int(last.preemptions - first.preemptions),
        "steps_per_second": round((last.steps - first.steps) / seconds, 1),
        "steps_with_prompts": round(1 - (last.small_steps - first.small_steps) / (last.steps - first.steps), 3),
        "front_end_cores": round((last.front_end_cpu_seconds - first.front_end_cpu_seconds) / seconds, 2),
        "engine_core_cores": round((last.core_cpu_seconds - first.core_cpu_seconds) / seconds, 2),
        "core_threads": [child.num_threads() for child in psutil.Process().children(recursive=True)],
    }


async def serve(llm: "AsyncLLM", engine: int, answers: TextIO) -> None:
    """Run phases until stdin ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        given = json.loads(line)
        phase = Phase(**given | {name: tuple(given[name]) for name in ("prompt_tokens", "output_tokens")})
        answer = measured(*await Load(llm, phase, engine).run()) if phase.is_active else {}
        print(json.dumps(answer), file=answers, flush=True)


async def main() -> None:
    """Start the engine that the first line describes, then serve phases."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = json.loads(sys.stdin.readline())
    if given["cores"]:
        os.sched_setaffinity(0, given["cores"])
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(given["model"], "m", given["options"])
        llm = launch(config, Path(folder) / "failure")
        try:
            await llm.get_supported_tasks()
            names = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "gpu_memory_utilization")
            cache = {name: getattr(llm.vllm_config.cache_config, name, None) for name in names}
            ready = {"start_seconds": round(time.monotonic() - started_at, 1)} | cache
            print(json.dumps(ready), file=answers, flush=True)
            await serve(llm, given["engine"], answers)
        finally:
            llm.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
