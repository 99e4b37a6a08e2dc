"""Do greedy outputs through the fleet equal those of vLLM called directly? On the machine's own accelerator.

``python -m benchmarks.equality --shape 8b --jobs 500 --output results/``

Starts a local fleet (its own server, one worker, Flower), maps the mixed job set through it, reads what the worker's
pages and the live process say, stops it, and runs the same requests in one ``LLM.generate`` call. On a GPU,
``VLLM_BATCH_INVARIANT=1`` takes the influence of the batch's composition on rounding out of both sides.
Exit code 0 when nothing differs.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from benchmarks.comparison import differences, direct_outputs
from benchmarks.job_mix import mixed_jobs
from producer import GenerationRequest, GenerationResult, Producer
from workers.bench.shapes import model_folder
from workers.local.stack import LocalStack

SHOWN_SERIES = ("fleet_requests_total", "fleet_gpu_memory", "fleet_engine_up", "fleet_drain_size_jobs_count")


def main() -> int:
    """Run both sides, print and save the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "0.6b", "8b"), default="tiny")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--longest-output-tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, options = model_folder(given.shape, Path(scratch))
        requests = list(mixed_jobs(given.jobs, folder.name, longest_output_tokens=given.longest_output_tokens))
        results, report = through_the_fleet(folder, options, requests, Path(scratch))
        shutil.copy(Path(scratch) / "worker.log", given.output / "worker.log")
    # The scratch folder is gone with the fleet; the reference makes the same model again.
    with tempfile.TemporaryDirectory() as scratch:
        folder, options = model_folder(given.shape, Path(scratch))
        direct = direct_outputs(str(folder), options, requests, os.environ)
    differing = differences(results, direct.outputs)
    report |= {
        "shape": given.shape,
        "jobs": len(requests),
        "distinct_outputs": len({tuple(output["token_ids"]) for output in direct.outputs}),
        "differing": len(differing),
        "first_differing": differing[:10],
        "direct_seconds": round(direct.seconds, 3),
        "direct_tokens_per_second": round(direct.completion_tokens / direct.seconds),
        "completion_tokens": direct.completion_tokens,
        "hardware": hardware(),
    }
    (given.output / f"equality-{given.shape}.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 1 if differing else 0


def through_the_fleet(
    folder: Path, options: dict[str, Any], requests: list[GenerationRequest], scratch: Path
) -> tuple[list[GenerationResult], dict[str, Any]]:
    """The fleet's results, and what was seen of the fleet meanwhile."""
    overrides = {f"engine.options.{name}": value for name, value in options.items()} | {"model.name": str(folder)}
    with LocalStack(scratch, overrides) as stack:
        stack.wait_until_ready()
        with Producer(stack.settings.redis.url) as producer:
            started_at = time.monotonic()
            results = [outcome.unwrap() for outcome in producer.map(requests)]
            seconds = time.monotonic() - started_at
        with urllib.request.urlopen(f"{stack.metrics_url}/metrics") as page:  # noqa: S310 - our own worker
            lines = page.read().decode().splitlines()
        tokens = sum(result.usage.completion_tokens for result in results)
        seen = {
            "fleet_seconds": round(seconds, 3),
            "fleet_tokens_per_second": round(tokens / seconds),
            "worker_environment": worker_environment(),
            "metrics": [line for line in lines if line.startswith(SHOWN_SERIES)],
            "vllm_series": sum(line.startswith("vllm:") for line in lines),
        }
    return results, seen


def worker_environment() -> list[dict[str, str]]:
    """What the kernel says of the live worker processes' GPUs."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        environ = Path(f"/proc/{process.pid}/environ")
        if "--ready-file" in " ".join(process.info["cmdline"] or ()) and environ.exists():
            pairs = dict(pair.partition("=")[::2] for pair in environ.read_bytes().decode().split("\0") if pair)
            names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
            found.append({"pid": str(process.pid)} | {name: pairs.get(name, "not set") for name in names})
    return found


def hardware() -> str:
    """GPU and driver, or the CPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed
    except OSError:
        return f"{platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
