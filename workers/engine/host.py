"""The engine's thread: one asyncio loop, the engine on it, and a watchdog that notices when it dies or hangs."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from workers.engine.base import Engine, EngineDead, EngineStartFailed
from workers.engine.warm_up import warm_up

log = logging.getLogger(__name__)

USUAL_BYTES_PER_TOKEN: Final = 4.0
"""Of English prose in common tokenizers; stands in until the warm-up has shown the model's own."""
HEALTH_CHECK_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 20.0

Returned = TypeVar("Returned")


class EngineHost:
    """Runs one engine on a loop in a thread of its own; everybody else talks to it through this object."""

    def __init__(
        self,
        engine: Engine,
        *,
        start_timeout_seconds: float,
        health_interval_seconds: float,
        health_timeout_seconds: float = HEALTH_CHECK_TIMEOUT_SECONDS,
        close_timeout_seconds: float = CLOSE_TIMEOUT_SECONDS,
    ) -> None:
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self.death: str | None = None
        """Why the engine is gone; None while it lives."""
        self.bytes_per_token = USUAL_BYTES_PER_TOKEN
        """UTF-8 bytes of English prose per token of this model, from the warm-up."""
        self._start_timeout_seconds = start_timeout_seconds
        self._health_interval_seconds = health_interval_seconds
        self._health_timeout_seconds = health_timeout_seconds
        self._close_timeout_seconds = close_timeout_seconds
        self._death_lock = threading.Lock()
        self._on_death: Callable[[str], None] | None = None
        self._last_heartbeat = time.monotonic()
        self._watchdog: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run_loop, name="engine", daemon=True)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, Returned], timeout_seconds: float) -> Returned:
        """Run a coroutine on the engine's loop and wait for it from another thread."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            raise

    def start(self, model: str) -> None:
        """Load the engine and serve one short job; returns when jobs may come.

        Raises:
            EngineError: it did not start, or not within the start timeout.
        """
        self._thread.start()
        try:
            self.run(self._start_and_warm_up(model), self._start_timeout_seconds)
        except TimeoutError as error:
            raise EngineStartFailed(
                f"the engine was not ready within {self._start_timeout_seconds:g} s; raise "
                "engine.start_timeout_seconds if the model is large or its files come from a slow disk"
            ) from error

    async def _start_and_warm_up(self, model: str) -> None:
        await self.engine.start()
        self.bytes_per_token = await warm_up(self.engine, model)
        self._last_heartbeat = time.monotonic()
        self._watchdog = asyncio.create_task(self._watch())

    def on_death(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(cause)`` on the engine's thread when the engine is gone; at once if it already is."""
        with self._death_lock:
            self._on_death, cause = callback, self.death
        if cause is not None:
            callback(cause)

    def report_death(self, cause: str) -> None:
        """The engine is gone; the first cause is kept and told, once."""
        with self._death_lock:
            if self.death is not None:
                return
            self.death, callback = cause, self._on_death
        if callback is not None:
            callback(cause)

    async def _watch(self) -> None:
        while self.death is None:
            try:
                async with asyncio.timeout(self._health_timeout_seconds):
                    await self.engine.check_health()
            except EngineDead as error:
                self.report_death(str(error))
            except TimeoutError:
                self.report_death(f"the engine did not answer a health check within {self._health_timeout_seconds:g} s")
            except Exception as error:
                # Whatever it is: a watchdog that ended in silence would leave a dead engine in service.
                log.exception("the health check failed", extra={"action": "health_check_failed"})
                self.report_death(f"the health check failed: {error}")
            self._last_heartbeat = time.monotonic()
            await asyncio.sleep(self._health_interval_seconds)

    @property
    def seconds_since_heartbeat(self) -> float:
        """Age of the watchdog's last turn: grows when the loop is stuck."""
        return time.monotonic() - self._last_heartbeat

    @property
    def is_healthy(self) -> bool:
        """Whether the engine lives and its loop turns."""
        return self.death is None and self.seconds_since_heartbeat < 3 * self._health_interval_seconds + 5

    def close(self) -> None:
        """Stop the engine and its thread; idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):  # a hung engine: the supervisor kills what is left of the group
                self.run(self._close_engine(), self._close_timeout_seconds)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(self._close_timeout_seconds)
        if not self._thread.is_alive():
            self.loop.close()

    async def _close_engine(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self.engine.close()
        # What still runs would be left pending by a loop that ends.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
