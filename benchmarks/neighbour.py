"""What an engine notices of another on the same device: bare AsyncLLM processes, no queue, no Redis.

``python -m benchmarks.neighbour --shape 8b --output neighbour.json``

One engine gets jobs of one token at a steady rate: alone, then with a second engine started beside it that idles, then
with that one full (:mod:`benchmarks.bare_engine`). Each time p50, p95 and p99 of a job in milliseconds, and the late
ones: when they came, in seconds, and what they took. It is the floor of what :mod:`benchmarks.flood` measures of the
fleet on the same machine: what is late here too, is not the fleet's. Works on the CPU build with ``--shape tiny``.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.bare_engine import Phase
from benchmarks.device_load import device_memory_bytes, hardware
from benchmarks.flood import at_rate, late, percentiles, prompt
from benchmarks.two_engines import EngineProcess, cores_of
from workers.bench.figures import MILLISECONDS
from workers.bench.shapes import model_folder
from workers.engine.base import EngineConfig
from workers.engine.vllm_launch import launch

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

WARM_UP_JOBS: Final = 40
LEAD_SECONDS: Final = 5.0
"""From the neighbour's first job to the first measured one, as in the flood."""


async def one_token_jobs(llm: "AsyncLLM", count: int, rate: float) -> list[tuple[float, None]]:
    """The seconds that each took."""
    from vllm import SamplingParams

    draw = random.Random()  # noqa: S311 - fresh prompts, no secret

    async def one() -> None:
        params = SamplingParams(max_tokens=1, ignore_eos=True)
        async for _ in llm.generate(prompt(draw), params, f"{draw.getrandbits(64):x}"):
            pass

    return await at_rate(one, count, rate)


async def phase(llm: "AsyncLLM", name: str, given: argparse.Namespace) -> dict[str, Any]:
    """One series, printed."""
    began_at = time.time()
    taken = await one_token_jobs(llm, given.jobs, given.rate)
    found = {
        "phase": name,
        "began_at": round(began_at, 2),
        **percentiles([seconds * MILLISECONDS for seconds, _ in taken]),
        "late": late(taken, given.rate),
    }
    print(json.dumps(found), flush=True)
    return found


def flood_of(given: argparse.Namespace) -> dict[str, Any]:
    """What the neighbour is told: be full for as long as the series takes."""
    flood = Phase(
        number=1,
        is_active=True,
        start_at=time.monotonic(),
        ramp_seconds=LEAD_SECONDS,
        measured_seconds=given.jobs / given.rate,
        streams=False,
        refill_group=0,
        as_text=False,
        prompt_tokens=(50, 300),
        output_tokens=(32, 512),
    )
    return dataclasses.asdict(flood)


async def measure(given: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """All three series."""
    folder, options = model_folder(given.shape, scratch)
    options |= {"max_num_seqs": given.slots, "max_model_len": 2048} | given.engine_options
    neighbours_cores: list[int] = []
    everywhere = os.sched_getaffinity(0)
    if device_memory_bytes() is None:  # vLLM's CPU build binds its threads at the start
        neighbours_cores = cores_of(1, 2)
        os.sched_setaffinity(0, cores_of(0, 2))
    llm = launch(EngineConfig(str(folder), "m", options), scratch / "failure")
    os.sched_setaffinity(0, everywhere)
    neighbour = None
    try:
        await one_token_jobs(llm, WARM_UP_JOBS, given.rate)
        found = [await phase(llm, "alone", given)]
        neighbour = EngineProcess(1, {}, scratch / "neighbour.log")
        neighbour.tell({"model": str(folder), "options": options, "engine": 1, "cores": neighbours_cores})
        await asyncio.to_thread(neighbour.answer)
        found.append(await phase(llm, "beside an idle engine", given))
        neighbour.tell(flood_of(given))
        await asyncio.sleep(LEAD_SECONDS)
        found.append(await phase(llm, "beside a full engine", given))
        found[-1]["neighbour"] = await asyncio.to_thread(neighbour.answer)
        print(json.dumps(found[-1]["neighbour"]), flush=True)
    finally:
        if neighbour is not None:
            neighbour.stop()
        llm.shutdown()
    return found


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "0.6b", "8b"), default="tiny")
    parser.add_argument("--jobs", type=int, default=300, help="of each series")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--engine-options", type=json.loads, default={})
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        phases = asyncio.run(measure(given, Path(scratch)))
    if given.output:
        given.output.write_text(json.dumps({"hardware": hardware(), "phases": phases}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
