"""What does it save that a conversation's turns go to the worker that has the conversation in its prefix cache?

``python -m benchmarks.conversations --conversations 8 --turns 6 --repeats 3``

Several people talk at once to one model on two workers or more; each reads for a moment before the next turn. ``kept``:
the fleet keeps the conversations (``conversation_id``), so turns prefer the worker that answered the last one and have
their conversation's ``prompt_cache_key``. ``sent``: the clients keep them and send each prompt whole, with a key that
no other has, so any worker takes it. Both take turns on the same fleet, over conversations that nobody has had before.
On the machine's own accelerator; by default the tiny model.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.job_mix import WORDS
from benchmarks.shared_prefix import counters
from producer import ChatMessage, ConversationTerms, GenerationResult, Producer, SamplingOptions
from producer.stream_reading import StreamDelta, StreamEnded
from workers.bench.figures import percentile
from workers.bench.machine import hardware
from workers.bench.shapes import MAX_MODEL_TOKENS, model_folder
from workers.local.stack import LocalStack, StackFailed, free_port

WAYS: Final = ("kept", "sent")
START_SECONDS: Final = 300.0
QUERIES, HITS = "vllm:prefix_cache_queries", "vllm:prefix_cache_hits"


@dataclass(frozen=True)
class Said:
    """How one turn was answered."""

    turn: int
    first_token_seconds: float
    """From before it was submitted."""
    result: GenerationResult


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "0.6b", "8b"), default="tiny")
    parser.add_argument("--workers", type=int, default=2, help="engines on the one device")
    parser.add_argument("--conversations", type=int, default=8, help="at the same time")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--first-characters", type=int, default=1500, help="of the first question")
    parser.add_argument("--later-characters", type=int, default=100, help="of those after it")
    parser.add_argument("--output-tokens", type=int, default=16)
    parser.add_argument("--reading-seconds", type=float, default=0.5, help="mean, between an answer and the next turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passes = measure(given, Path(folder))
    figures = {way: {name: [one[name] for one in passes[way]] for name in passes[way][0]} for way in WAYS}
    report = json.dumps(figures | {"arguments": vars(given) | {"output": None}, "hardware": hardware()}, indent=1)
    print(report)
    if given.output:
        given.output.write_text(report + "\n")
    return 0


def measure(given: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Every pass by way, both ways in turn."""
    model, options = model_folder(given.shape, folder)
    overrides = {f"engine.options.{name}": value for name, value in options.items()}
    overrides |= {"model.name": str(model), "metrics.port": free_port(0), "worker.engines_per_gpu": given.workers}
    passes: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with LocalStack(folder, overrides) as stack, Producer(stack.settings.redis.url) as producer:
        producer.conversation_terms = ConversationTerms(max_tokens=MAX_MODEL_TOKENS)
        wait_for_workers(producer, given.workers)
        port = stack.settings.metrics.port
        pages = [f"http://{stack.settings.metrics.host}:{port + number}" for number in range(given.workers)]
        for repeat in range(-1, given.repeats):
            for way in WAYS:
                measured = one_pass(given, Talk(producer, model.name, given, is_kept=way == "kept"), pages)
                if repeat >= 0:  # the first pass of each warms engines and connections up
                    passes[way].append(measured)
                    print(way, measured, flush=True)
    return passes


def wait_for_workers(producer: Producer, count: int) -> None:
    """Return when so many take jobs."""
    deadline = time.monotonic() + START_SECONDS
    while sum(one.is_ready for one in producer.workers()) < count:
        if time.monotonic() > deadline:
            raise StackFailed(f"{count} workers were not ready within {START_SECONDS:g} s")
        time.sleep(0.5)


@dataclass(frozen=True)
class Talk:
    """How somebody talks to the model."""

    producer: Producer
    model: str
    given: argparse.Namespace
    is_kept: bool

    def held(self, number: int) -> list[Said]:
        """One conversation, from its first turn to its last."""
        name = uuid.uuid4().hex
        draw = random.Random(f"{name} {number}")  # noqa: S311 - words that no pass has seen, not a secret
        history: list[ChatMessage] = []
        said = []
        for turn in range(self.given.turns):
            time.sleep(draw.uniform(0, 2 * self.given.reading_seconds))
            characters = self.given.first_characters if turn == 0 else self.given.later_characters
            question = ChatMessage(role="user", content=text(draw, characters))
            said.append(self._answered(turn, name, history, question))
            history += [question, ChatMessage(role="assistant", content=said[-1].result.text)]
        return said

    def _answered(self, turn: int, name: str, history: Sequence[ChatMessage], question: ChatMessage) -> Said:
        sampling = SamplingOptions(max_tokens=self.given.output_tokens, temperature=0.0, ignore_eos=True)
        how: dict[str, Any] = {"messages": [question], "conversation_id": name}
        if not self.is_kept:
            how = {"messages": [*history, question], "prompt_cache_key": uuid.uuid4().hex}
        began_at = time.monotonic()
        job = self.producer.submit(model=self.model, sampling=sampling, stream=True, **how)
        first_token_seconds: float | None = None
        for news in self.producer.stream(job):
            if first_token_seconds is None and isinstance(news, StreamDelta):
                first_token_seconds = time.monotonic() - began_at
            if isinstance(news, StreamEnded):
                assert first_token_seconds is not None  # noqa: S101 - a delta comes first
                return Said(turn, first_token_seconds, news.result)
        raise AssertionError("a stream ends with its result")


def text(draw: random.Random, characters: int) -> str:
    """So much of words."""
    said = ""
    while len(said) < characters:
        said += draw.choice(WORDS) + " "
    return said


def one_pass(given: argparse.Namespace, talk: Talk, pages: Sequence[str]) -> dict[str, float]:
    """All conversations of one way at the same time, and what engines and clients saw."""
    before = [counters(page) for page in pages]
    with ThreadPoolExecutor(given.conversations) as people:
        held = list(people.map(talk.held, range(given.conversations)))
    after = [counters(page) for page in pages]
    queries, hits = (sum(a[name] - b[name] for a, b in zip(after, before, strict=True)) for name in (QUERIES, HITS))
    later = [one.first_token_seconds for said in held for one in said if one.turn > 0]
    pairs = [(one.result.worker, two.result.worker) for said in held for one, two in pairwise(said)]
    return {
        "cached_percent": round(100 * hits / queries, 1),
        "prompt_tokens": queries,
        "same_worker_percent": round(100 * sum(one == two for one, two in pairs) / len(pairs), 1),
        "later_turns_first_token_p50_ms": round(1000 * statistics.median(later), 1),
        "later_turns_first_token_p95_ms": round(1000 * percentile(later, 0.95), 1),
        "first_turns_first_token_p50_ms": round(1000 * statistics.median(s[0].first_token_seconds for s in held), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
