"""A crowd at the gateway: callers that wait for whole answers, and open streams, all at once.

``python -m benchmarks.crowd --waiting 2000 --streams 500 --json crowd.json``

A local fleet with the simulated engine (its slots for everybody, so that all streams flow at once) and one gateway
process. Reports the gateway's memory before, at its most and after, its CPU time, how late answers and pieces were, and
what failed. The callers' own process is another one, so its memory does not count.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from config.gateway_settings import GatewaySettings
from workers.bench.figures import percentile
from workers.bench.machine import hardware, versions
from workers.local.stack import LocalStack

MILLISECONDS = 1000
MIB = 1024**2
WATCH_SECONDS = 0.1
READY_SECONDS = 60.0


@dataclass
class Watched:
    """A process and what it took."""

    process: psutil.Process
    most_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """Resident now."""
        return int(self.process.memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """So far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    async def watch(self) -> None:
        """Remember the most memory, until cancelled."""
        while True:
            self.most_bytes = max(self.most_bytes, self.memory_bytes)
            await asyncio.sleep(WATCH_SECONDS)


@dataclass
class Heard:
    """What the callers heard."""

    whole_seconds: list[float] = field(default_factory=list)
    first_piece_seconds: list[float] = field(default_factory=list)
    gap_seconds: list[float] = field(default_factory=list)
    """Between two pieces of one stream."""
    failures: list[str] = field(default_factory=list)


def body(tokens: int, number: int, *, stream: bool) -> dict[str, Any]:
    """One request."""
    return {
        "model": "sim",
        "prompt": f"Page {number}",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": stream,
    }


async def wait(client: httpx.AsyncClient, heard: Heard, tokens: int, number: int) -> None:
    """One caller of a whole answer."""
    began_at = time.perf_counter()
    answer = await client.post("/v1/completions", json=body(tokens, number, stream=False))
    if answer.status_code != httpx.codes.OK or answer.json()["usage"]["completion_tokens"] != tokens:
        heard.failures.append(answer.text[:200])
    heard.whole_seconds.append(time.perf_counter() - began_at)


async def follow(client: httpx.AsyncClient, heard: Heard, tokens: int, number: int) -> None:
    """One stream, read to its end."""
    last_at, is_first, is_done = time.perf_counter(), True, False
    async with client.stream("POST", "/v1/completions", json=body(tokens, number, stream=True)) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            is_done = is_done or line == "data: [DONE]"
            now = time.perf_counter()
            (heard.first_piece_seconds if is_first else heard.gap_seconds).append(now - last_at)
            last_at, is_first = now, False
    if not is_done:
        heard.failures.append("a stream ended before its end")


async def crowd(address: str, gateway: Watched, given: argparse.Namespace) -> dict[str, Any]:
    """Everybody at once."""
    limits, heard = httpx.Limits(max_connections=None, max_keepalive_connections=0), Heard()
    async with httpx.AsyncClient(base_url=address, timeout=given.timeout_seconds, limits=limits) as client:
        for number in range(20):
            await wait(client, heard, 1, number)
        before, cpu_before = gateway.memory_bytes, gateway.cpu_seconds
        heard, watching = Heard(), asyncio.create_task(gateway.watch())
        began_at = time.perf_counter()
        callers = [wait(client, heard, given.tokens, number) for number in range(given.waiting)]
        readers = [follow(client, heard, given.tokens, number) for number in range(given.streams)]
        ended = await asyncio.gather(*callers, *readers, return_exceptions=True)
        seconds = time.perf_counter() - began_at
        watching.cancel()
    heard.failures += [repr(one) for one in ended if isinstance(one, BaseException)]
    return {
        "waiting": given.waiting,
        "streams": given.streams,
        "tokens_each": given.tokens,
        "wall_seconds": round(seconds, 1),
        "failures": len(heard.failures),
        "first_failures": heard.failures[:3],
        "whole_answer_ms": percentiles(heard.whole_seconds),
        "first_piece_ms": percentiles(heard.first_piece_seconds),
        "gap_ms": percentiles(heard.gap_seconds),
        "pieces": len(heard.gap_seconds) + len(heard.first_piece_seconds),
        "gateway_mib_before": round(before / MIB, 1),
        "gateway_mib_most": round(gateway.most_bytes / MIB, 1),
        "gateway_mib_after": round(gateway.memory_bytes / MIB, 1),
        "gateway_cpu_seconds": round(gateway.cpu_seconds - cpu_before, 2),
        "gateway_cpu_ms_per_request": round(
            (gateway.cpu_seconds - cpu_before) / max(1, given.waiting + given.streams) * MILLISECONDS, 2
        ),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the most, in milliseconds."""
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0} if seconds else {}
    return {name: round(percentile(seconds, share) * MILLISECONDS, 1) for name, share in shares.items()}


def main() -> int:
    """Measure, print and write."""
    given = parsed()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    everybody = given.waiting + given.streams
    overrides = {
        "model.name": "sim",
        "engine.kind": "simulated",
        "engine.options.max_num_seqs": everybody,
        "engine.options.seconds_per_token": given.seconds_per_token,
        "worker.gpus": "none",
        "gateway.max_concurrent_requests": max(everybody, GatewaySettings().max_concurrent_requests),
    }
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": ["python", "-m", "benchmarks.crowd", *sys.argv[1:]],
        "hardware": hardware(),
        "versions": versions(),
    }
    with tempfile.TemporaryDirectory() as folder, LocalStack(Path(folder), overrides) as stack:
        stack.wait_until_ready()
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(stack.gateway_url) and time.monotonic() < deadline:
            time.sleep(WATCH_SECONDS)
        family = psutil.Process().children(recursive=True)
        [gateway] = [process for process in family if "gateway" in process.cmdline()]
        report["crowd"] = asyncio.run(crowd(stack.gateway_url, Watched(gateway), given))
    text = json.dumps(report, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return 1 if report["crowd"]["failures"] else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--seconds-per-token", type=float, default=0.1)
    parser.add_argument("--timeout-seconds", type=float, default=300.0)
    parser.add_argument("--json", type=Path, help="where to write everything")
    return parser.parse_args()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    sys.exit(main())
