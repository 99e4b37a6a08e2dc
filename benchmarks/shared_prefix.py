"""What does running jobs of one document near each other gain? The prefix cache's hits, with the sorting on and off.

``python -m benchmarks.shared_prefix --documents 48 --questions 8 --repeats 2``

Each document is asked several questions; the jobs are queued question by question, so that the jobs of one document
come as far apart as they can. The KV cache holds a part of the documents. Both settings take turns, each pass on a
fleet of its own with documents that no pass has seen. On the machine's own accelerator; by default the tiny model.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.job_mix import WORDS
from producer import GenerationRequest, Producer, SamplingOptions
from workers.bench.machine import hardware
from workers.bench.shapes import model_folder
from workers.local.stack import LocalStack

WINDOWS_SECONDS: Final = {"on": 60.0, "off": 0.0}
OUTPUT_TOKENS: Final = 8
COUNTERS: Final = ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "0.6b", "8b"), default="tiny")
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--document-characters", type=int, default=1500)
    parser.add_argument("--kv-blocks", type=int, default=150, help="num_gpu_blocks_override; 0: as many as there are")
    parser.add_argument("--max-num-seqs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    passes: dict[str, list[dict[str, float]]] = {name: [] for name in WINDOWS_SECONDS}
    for repeat in range(given.repeats):
        for name, window_seconds in WINDOWS_SECONDS.items():
            with tempfile.TemporaryDirectory() as folder:
                passes[name].append(one_pass(given, Path(folder), window_seconds, seed=f"{repeat} {name}"))
            print(name, passes[name][-1], flush=True)
    report = {name: summary(measured) for name, measured in passes.items()}
    report_text = json.dumps(report | {"arguments": vars(given) | {"output": None}, "hardware": hardware()}, indent=1)
    print(report_text)
    if given.output:
        given.output.write_text(report_text)
    return 0


def one_pass(given: argparse.Namespace, folder: Path, window_seconds: float, seed: str) -> dict[str, float]:
    """Seconds, and what the engine's counters say."""
    model, options = model_folder(given.shape, folder)
    options = {**options, "max_num_seqs": given.max_num_seqs}
    if given.kv_blocks:
        options["num_gpu_blocks_override"] = given.kv_blocks
    overrides = {f"engine.options.{name}": value for name, value in options.items()}
    overrides |= {"model.name": str(model), "worker.prefix_window_seconds": window_seconds}
    with LocalStack(folder, overrides) as stack:
        stack.wait_until_ready()
        with Producer(stack.settings.redis.url) as producer:
            before = counters(stack.metrics_url)
            started_at = time.monotonic()
            outcomes = list(producer.map(jobs(given, model.name, seed), window=10**6, in_order=False))
            seconds = time.monotonic() - started_at
            after = counters(stack.metrics_url)
    results = [outcome.unwrap() for outcome in outcomes]
    queries, hits, preemptions = (after[name] - before[name] for name in COUNTERS)
    return {
        "seconds": round(seconds, 2),
        "jobs_per_second": round(len(results) / seconds, 2),
        "hit_percent": round(100 * hits / queries, 1),
        "preemptions": preemptions,
        "longest_queued_seconds": round(max(result.timings.queued_seconds or 0 for result in results), 2),
    }


def jobs(given: argparse.Namespace, model: str, seed: str) -> list[GenerationRequest]:
    """All documents' first questions, then all their second ones, and so on."""
    draw = random.Random(seed)  # noqa: S311 - a repeatable mix, not a secret
    documents = []
    for _ in range(given.documents):
        text = ""
        while len(text) < given.document_characters:
            text += draw.choice(WORDS) + " "
        documents.append(text)
    sampling = SamplingOptions(max_tokens=OUTPUT_TOKENS, temperature=0.0, ignore_eos=True)
    return [
        GenerationRequest(
            model=model, prompt=f"{document}\nQuestion {number}: {draw.choice(WORDS)}?", sampling=sampling
        )
        for number in range(given.questions)
        for document in documents
    ]


def counters(metrics_url: str) -> dict[str, float]:
    """The engine's counters by name."""
    with urllib.request.urlopen(f"{metrics_url}/metrics") as page:  # noqa: S310 - our own worker
        families = text_string_to_metric_families(page.read().decode())
        found = {family.name: sum(s.value for s in family.samples if s.name.endswith("_total")) for family in families}
    return {name: found.get(name, 0.0) for name in COUNTERS}


def summary(measured: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and every pass, by figure."""
    return {
        name: {
            "mean": round(statistics.mean(one[name] for one in measured), 2),
            "passes": [one[name] for one in measured],
        }
        for name in measured[0]
    }


if __name__ == "__main__":
    sys.exit(main())
