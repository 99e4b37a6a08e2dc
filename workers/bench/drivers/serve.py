"""``serve``: ``vllm serve`` over HTTP, asked by as many clients as the engine has slots."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from workers.bench.drivers.base import Driver, cpu_seconds_of, environment
from workers.bench.drivers.child import Child
from workers.bench.engines.base import GREEDY
from workers.bench.load import BenchJob, Load
from workers.bench.pacing import paced
from workers.bench.records import JobRecord, PassRecord
from workers.bench.target import BenchError, EngineTarget
from workers.local.stack import free_port, page_is_ok

if TYPE_CHECKING:
    from aiohttp import ClientSession

HOST: Final = "127.0.0.1"
OK: Final = 200


class ServeDriver(Driver):
    """See the module. Not streamed, so it cannot tell when a first token came."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        self._address = f"http://{HOST}:{free_port(0)}"
        self._server = Child(self._command(), folder / "serve.log", environment(target))

    def _command(self) -> list[str]:
        target, port = self.target, self._address.rpartition(":")[2]
        named = ["--served-model-name", target.served, "--host", HOST, "--port", port, "--uvicorn-log-level", "warning"]
        return [sys.executable, "-m", *entry_point(target.model), *named, *flags(target.options)]

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        self._server.start()
        self._server.wait_until(lambda: page_is_ok(f"{self._address}/health"))

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        return asyncio.run(self._asked(load))

    async def _asked(self, load: Load) -> PassRecord:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        clients, no_limit = TCPConnector(limit=load.window or 0), ClientTimeout(total=None)
        async with ClientSession(self._address, connector=clients, timeout=no_limit) as session:

            async def ask(job: BenchJob, record: JobRecord) -> None:
                await self._ask(session, job, record)

            return await paced(load, ask)

    async def _ask(self, session: "ClientSession", job: BenchJob, record: JobRecord) -> None:
        body = {"model": self.target.served, "prompt": job.prompt, "max_tokens": job.output_tokens, **GREEDY}
        async with session.post("/v1/completions", json=body) as response:
            answer = await response.json()
            if response.status != OK:
                raise BenchError(f"HTTP {response.status}: {answer}")
        usage = answer["usage"]
        record.prompt_tokens, record.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far: of this client, the HTTP server, and the processes that it started."""
        server = self._server.process
        return {
            "producer": cpu_seconds_of([psutil.Process()]),
            "worker": cpu_seconds_of([server]),
            "engine": cpu_seconds_of(server.children(recursive=True)),
        }

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._server.stop()


def entry_point(model: str) -> list[str]:
    """``vllm serve MODEL`` as a module; vLLM's CPU build has another name, which its own command does not find."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return ["vllm.entrypoints.openai.api_server", "--model", model]
    return ["vllm.entrypoints.cli.main", "serve", model]


def flags(options: Mapping[str, Any]) -> Iterator[str]:
    """Engine options as ``vllm serve`` takes them."""
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", value if isinstance(value, str) else json.dumps(value))
