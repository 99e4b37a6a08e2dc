"""A bare engine for callers that are threads: it lives on an event loop in a thread of its own."""

import asyncio
import threading

from workers.bench.engines.base import Generated
from workers.bench.engines.choice import bare_engine
from workers.bench.load import BenchJob
from workers.bench.target import EngineTarget


class ThreadedEngine:
    """Every call blocks its thread only."""

    def __init__(self, target: EngineTarget) -> None:
        self._engine = bare_engine(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)

    def start(self) -> None:
        """Load the model."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._engine.start(), self._loop).result()

    def generate(self, job: BenchJob) -> Generated:
        """Run one job to its end."""
        return asyncio.run_coroutine_threadsafe(self._engine.generate(job), self._loop).result()

    def close(self) -> None:
        """Stop it."""
        asyncio.run_coroutine_threadsafe(self._engine.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
