"""The engine's thread: start, watchdog, death and end."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import pytest

from tests.waiting import eventually
from workers.engine.base import (
    Capacity,
    ChoiceIncrement,
    Engine,
    EngineConfig,
    EngineDead,
    EngineOptionsInvalid,
    EngineRequest,
    EngineStartFailed,
    GenerationFailed,
    Increment,
)
from workers.engine.host import EngineHost
from workers.engine.simulated import SimulatedEngine
from workers.engine.warm_up import WARM_UP_TOKENS

TICK_SECONDS = 0.01


class WatchedEngine(Engine):
    """An engine whose health the test decides."""

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []
        self.illness: Exception | None = None
        self.is_stuck = False
        self.check_count = 0
        self.close_count = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        """One word."""
        self.requests.append(attempt)
        yield Increment((ChoiceIncrement(0, "word", 1, "stop"),), prompt_tokens=1)

    async def abort(self, attempt_id: str) -> None:
        """Nothing runs for long."""

    async def check_health(self) -> None:
        """As the test says: well, ill, or no answer."""
        self.check_count += 1
        if self.illness is not None:
            raise self.illness
        if self.is_stuck:
            await asyncio.Event().wait()

    def capacity(self) -> Capacity:
        """Any."""
        return Capacity(1, WARM_UP_TOKENS)

    async def close(self) -> None:
        """Counted."""
        self.close_count += 1


class NeverStarting(WatchedEngine):
    """Its start takes for ever."""

    async def start(self) -> None:
        """Wait for nothing."""
        await asyncio.Event().wait()


class NeverClosing(WatchedEngine):
    """Its end takes for ever."""

    async def close(self) -> None:
        """Wait for nothing."""
        await asyncio.Event().wait()


def host_of(engine: Engine, start_timeout_seconds: float = 10.0, interval_seconds: float = TICK_SECONDS) -> EngineHost:
    """A host with short intervals, not started."""
    return EngineHost(
        engine,
        start_timeout_seconds=start_timeout_seconds,
        health_interval_seconds=interval_seconds,
        health_timeout_seconds=0.1,
        close_timeout_seconds=1.0,
    )


@contextmanager
def started(engine: WatchedEngine) -> Iterator[tuple[EngineHost, list[str]]]:
    """A host that runs, and the causes of death that it tells."""
    host, causes = host_of(engine), list[str]()
    host.start("m")
    host.on_death(causes.append)
    try:
        yield host, causes
    finally:
        host.close()


def is_thread_left(host: EngineHost) -> bool:
    """Whether the engine's thread lives."""
    return host._thread in threading.enumerate()


def test_the_start_serves_one_short_request() -> None:
    """So the first job finds everything compiled and loaded."""
    engine = WatchedEngine()
    with started(engine) as (host, _):
        [warm_up] = engine.requests
        assert warm_up.request.model == "m"
        assert warm_up.request.sampling.max_tokens == WARM_UP_TOKENS
        assert host.is_healthy
        assert host.death is None


def test_a_start_that_takes_too_long_is_named_with_its_setting() -> None:
    """And leaves no thread behind once the host is closed."""
    host = host_of(NeverStarting(), start_timeout_seconds=0.05)
    with pytest.raises(EngineStartFailed, match=r"not ready within 0.05 s; raise engine.start_timeout_seconds"):
        host.start("m")
    host.close()
    assert not is_thread_left(host)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"start_fault": "fails"}, EngineStartFailed), ({"max_num_seqs": 0}, EngineOptionsInvalid)],
)
def test_a_failed_start_raises_the_engines_own_error(options: dict[str, object], error: type[Exception]) -> None:
    """The caller decides by its type whether a restart may help."""
    host = host_of(SimulatedEngine(EngineConfig("none", "m", options)))
    with pytest.raises(error):
        host.start("m")
    host.close()
    assert not is_thread_left(host)


def test_closing_twice_closes_the_engine_once() -> None:
    """Every way out of the process may close."""
    engine = WatchedEngine()
    with started(engine) as (host, _):
        host.close()
        host.close()
        assert engine.close_count == 1
        assert not is_thread_left(host)


def test_closing_a_host_that_was_never_started_is_fine() -> None:
    """Nothing to stop; the loop is given back."""
    host = host_of(WatchedEngine())
    host.close()
    assert host.loop.is_closed()


def test_an_engine_that_does_not_close_holds_nobody_up() -> None:
    """The thread ends at the close timeout; the supervisor kills what is left."""
    host = host_of(NeverClosing())
    host.start("m")
    host.close()
    assert not is_thread_left(host)


@pytest.mark.parametrize(
    ("illness", "cause"),
    [
        (EngineDead("its process is gone"), "its process is gone"),
        (GenerationFailed("odd"), "the health check failed: odd"),
        (ValueError("a bug in the engine"), "the health check failed: a bug in the engine"),
    ],
)
def test_a_failing_health_check_is_the_engines_death(illness: Exception, cause: str) -> None:
    """Whatever it raises: a watchdog that only ended would leave a dead engine in service."""
    engine = WatchedEngine()
    with started(engine) as (host, causes):
        engine.illness = illness
        eventually(lambda: causes, what="the death is told")
        assert causes == [cause]
        assert host.death == cause
        assert not host.is_healthy


def test_a_health_check_without_an_answer_is_the_engines_death() -> None:
    """A hung engine is a dead one."""
    engine = WatchedEngine()
    with started(engine) as (host, causes):
        engine.is_stuck = True
        eventually(lambda: causes, what="the death is told")
        assert causes == ["the engine did not answer a health check within 0.1 s"]
        assert not host.is_healthy


def test_the_first_cause_of_death_is_told_once() -> None:
    """The runner and the watchdog both see a dead engine; later causes are only its echo."""
    with started(WatchedEngine()) as (host, causes):
        tellers = [threading.Thread(target=host.report_death, args=("the same",)) for _ in range(8)]
        for teller in tellers:
            teller.start()
        for teller in tellers:
            teller.join()
        host.report_death("an echo")
        assert causes == ["the same"]
        assert host.death == "the same"


def test_who_asks_after_the_death_is_told_at_once() -> None:
    """It may happen between the warm-up and the first job."""
    engine, late = WatchedEngine(), list[str]()
    with started(engine) as (host, _):
        host.report_death("early")
        host.on_death(late.append)
        assert late == ["early"]


def test_the_watchdog_ends_with_the_engine() -> None:
    """A dead engine is not asked for its health again."""
    engine = WatchedEngine()
    with started(engine) as (host, causes):
        engine.illness = EngineDead("gone")
        eventually(lambda: causes, what="the death is told")
        watchdog = host._watchdog
        assert watchdog is not None
        eventually(watchdog.done, what="the watchdog ended")


def test_a_loop_that_is_stuck_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat ages; the test turns the clock forward while the loop is held."""
    with started(WatchedEngine()) as (host, _):
        release, held = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(10.0)

        try:
            host.loop.call_soon_threadsafe(hold)
            assert held.wait(10.0)
            now = time.monotonic()
            with monkeypatch.context() as clock:
                clock.setattr("workers.engine.host.time.monotonic", lambda: now + 6.0)
                assert host.seconds_since_heartbeat >= 6.0
                assert not host.is_healthy
        finally:
            release.set()
        eventually(lambda: host.is_healthy and host.seconds_since_heartbeat < 1.0, what="the loop turns again")
