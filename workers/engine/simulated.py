"""An engine without a model: true to vLLM in processes, slots, order and failures, and quick to start.

``request.metadata["simulate"]`` asks for a fault: ``kills_engine`` (the core dies), ``hangs``, ``overloaded``,
``overloaded_once`` (the first attempt of that prompt only), ``fails``, or ``slow:<seconds>`` on top of its usual time;
or for a tool call: :mod:`workers.engine.simulated_tools`.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TextIO

from producer.contract import FailureCode, GenerationRequest
from producer.strict import unknown_name
from workers.engine.adapters import adapter_options, refuse_unknown_adapter
from workers.engine.base import (
    Capacity,
    Engine,
    EngineConfig,
    EngineDead,
    EngineOptionsInvalid,
    EngineOverloaded,
    EngineRequest,
    EngineStartFailed,
    GenerationFailed,
    Increment,
    RequestRejected,
)
from workers.engine.entrance import Entrance, group_jobs
from workers.engine.simulated_attempt import Attempt, Slots
from workers.engine.simulated_core import SimulatedCore
from workers.engine.simulated_device import SimulatedDevice
from workers.engine.simulated_text import Written, prompt_tokens, refuse_contradictions, spelled, write
from workers.engine.simulated_tools import CALLS_TOOL, forced_text, markup, refuse_unknown_parser, splitter_of
from workers.engine.tool_calls import is_forced, may_call

DIED: Final = "the simulated engine's process died"

FAULT_KEY: Final = "simulate"
FAULTS: Final = dict.fromkeys(("kills_engine", "hangs", "overloaded", "overloaded_once", "fails", "slow", CALLS_TOOL))


@dataclass(frozen=True)
class SimulatedOptions:
    """The engine options that the simulated engine knows."""

    max_num_seqs: int = 64
    """Jobs that run together; the rest waits in order of arrival. A job takes one slot whatever its ``n``."""
    max_model_len: int = 2_048
    """Longest prompt plus output, in words."""
    kv_cache_tokens: int | None = None
    """What it says that its KV cache holds; it has none."""
    seconds_per_token: float = 0.001
    start_seconds: float = 0.0
    """How long the start takes."""
    device_folder: str = ""
    """Engines that name the same folder are on one device: beyond ``device_engines`` they slow each other down."""
    device_engines: float = 1.0
    """How many of them fill that device."""
    start_fault: Literal["", "fails"] = ""
    slot_log: str = ""
    """A file that gets a line per job that had a slot: when it was given and when left, in seconds since the epoch."""

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_model_len"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise EngineOptionsInvalid(f"engine option {name!r} must be a whole number above 0")
        if not isinstance(self.device_engines, int | float) or self.device_engines <= 0:
            raise EngineOptionsInvalid("engine option 'device_engines' must be a number above 0")
        for name in ("seconds_per_token", "start_seconds"):
            if not isinstance(getattr(self, name), int | float) or getattr(self, name) < 0:
                raise EngineOptionsInvalid(f"engine option {name!r} must be a number of seconds, not below 0")
        if self.start_fault not in ("", "fails"):
            raise EngineOptionsInvalid("engine option 'start_fault' must be empty or 'fails'")

    @classmethod
    def of(cls, config: EngineConfig) -> "SimulatedOptions":
        """The options of a configuration.

        Raises:
            EngineOptionsInvalid: one is unknown or out of range.
        """
        known = {option.name: option for option in dataclasses.fields(cls)}
        for name in config.options:
            if name not in known:
                raise EngineOptionsInvalid(unknown_name("engine option", name, known))
        return cls(**config.options)


class SimulatedEngine(Engine):
    """Answers at a fixed pace with words that follow from prompt and sampling; dies when its core process does."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._options = SimulatedOptions()
        self._slots = Slots(self._options.max_num_seqs)
        self._device = SimulatedDevice("", 1)
        self._core: SimulatedCore | None = None
        self._death: str | None = "the engine is not running"
        self._has_died = False
        self._attempts: dict[str, Attempt] = {}
        self._entrance = Entrance(1)
        self._refused_once: set[tuple[str, ...]] = set()

    @property
    def core_pid(self) -> int | None:
        """Process id of the core; None when there is none."""
        return self._core.pid if self._core else None

    async def start(self) -> None:
        """See :meth:`Engine.start`."""
        self._options = SimulatedOptions.of(self._config)
        refuse_unknown_parser(self._config.tool_call_parser)
        adapter_options(self._config.lora_adapters, {})  # refuses a folder that holds none, as a real engine does
        self._slots = Slots(self._options.max_num_seqs, self._slot_log())
        # Groups gain it nothing, so it has none unless told to.
        self._entrance = Entrance(group_jobs(self._config.refill_jobs or 1, self._options.max_num_seqs))
        await asyncio.sleep(self._options.start_seconds)
        if self._options.start_fault:
            raise EngineStartFailed("the simulated engine was told to fail (engine option start_fault)")
        self._core = SimulatedCore(self._die)
        try:
            await self._core.start()
        except OSError as error:
            raise EngineStartFailed(f"the simulated engine's process did not start: {error}") from error
        self._device = SimulatedDevice(self._options.device_folder, self._options.device_engines)
        self._device.enter()
        self._death = None

    def _slot_log(self) -> TextIO | None:
        if not self._options.slot_log:
            return None
        try:
            return Path(self._options.slot_log).open("a", buffering=1)
        except OSError as error:
            raise EngineOptionsInvalid(f"engine option 'slot_log' cannot be written: {error}") from error

    def _die(self) -> None:
        self._death = DIED
        self._has_died = True
        self._stop_all()

    def _stop_all(self) -> None:
        for attempt in self._attempts.values():
            attempt.stop()
        self._entrance.open()

    def _refuse_when_down(self) -> None:
        if self._death is not None:
            raise EngineDead(self._death)

    async def generate(self, attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        """See :meth:`Engine.generate`."""
        self._refuse_when_down()
        refuse_unknown_adapter(attempt.request, self._config.lora_adapters)
        running = self._written(attempt.request)
        if attempt.begun is not None:
            running.go_on(attempt.begun)
        splitter = splitter_of(attempt, self._config.tool_call_parser)
        self._attempts[attempt.attempt_id] = running
        try:
            await self._entrance.enter(attempt.patience)
            increments = self._in_slot(running)
            async with aclosing(increments if splitter is None else splitter.split(increments)) as increments:
                async for increment in increments:
                    yield increment
        finally:
            del self._attempts[attempt.attempt_id]

    async def _in_slot(self, running: Attempt) -> AsyncGenerator[Increment, None]:
        self._slots.enter(running)
        try:
            await running.turn.wait()
            extra_seconds = await self._suffer(running)
            async with aclosing(self._paced(running, extra_seconds)) as increments:
                async for increment in increments:
                    yield increment
        finally:
            self._slots.leave(running)

    def _written(self, request: GenerationRequest) -> Attempt:
        if request.response_format is not None and request.response_format.type != "text":
            raise RequestRejected(
                FailureCode.INVALID_REQUEST,
                f"the simulated engine has no response_format {request.response_format.type}",
            )
        sampling = request.sampling.resolved()
        refuse_contradictions(sampling)
        fault, prompt = _fault(request), prompt_tokens(request)
        if (room_tokens := self._options.max_model_len - len(prompt)) < 1:
            raise RequestRejected(
                FailureCode.CONTEXT_LENGTH_EXCEEDED,
                f"the prompt has {len(prompt)} tokens; this model takes at most {self._options.max_model_len - 1}, "
                "so that one more fits into its context",
            )
        if fault == "overloaded" or (fault == "overloaded_once" and prompt not in self._refused_once):
            self._refused_once.add(prompt)
            raise EngineOverloaded("the simulated engine was told to be overloaded")
        return Attempt(request, len(prompt), _choices(request, write(prompt, sampling, room_tokens), room_tokens))

    async def _suffer(self, running: Attempt) -> float:
        """Act out the fault that the request asks for; returns seconds to add to its usual time."""
        fault = _fault(running.request)
        if fault == "fails":
            raise GenerationFailed("the simulated engine was told to fail on this request")
        if fault == "kills_engine" and self._core is not None:
            self._core.kill()
        if fault in ("hangs", "kills_engine"):
            await running.wait(None)
        return _slow_seconds(running.request)

    async def _paced(self, running: Attempt, extra_seconds: float) -> AsyncGenerator[Increment, None]:
        pace_seconds, length = self._options.seconds_per_token * self._device.slowdown, running.longest_tokens
        running.first_token_seconds = time.monotonic() - running.arrived + extra_seconds + pace_seconds
        first = running.tokens_before
        step = 1 if running.request.stream else length
        if first >= length:
            yield running.increment(first, first, is_last=True)
        for sent in range(first, length, step):
            began = time.monotonic()
            await running.wait(step * pace_seconds + (extra_seconds if sent == first else 0))
            if self._has_died:
                raise EngineDead(DIED)
            if running.stopped.is_set():
                passed = int((time.monotonic() - began) / pace_seconds) if pace_seconds else 0
                yield running.increment(sent, min(sent + passed, length), is_last=True)
                return
            yield running.increment(sent, sent + step, is_last=sent + step >= length)

    async def abort(self, attempt_id: str) -> None:
        """See :meth:`Engine.abort`."""
        if attempt_id in self._attempts:
            self._attempts[attempt_id].stop()
            self._entrance.open()

    async def check_health(self) -> None:
        """See :meth:`Engine.check_health`; never answers while the core process is stopped, as a hung one."""
        self._refuse_when_down()
        if self._core is not None and self._core.is_stopped:
            await asyncio.Event().wait()

    def capacity(self) -> Capacity:
        """See :meth:`Engine.capacity`."""
        options = self._options
        return Capacity(
            options.max_num_seqs,
            options.max_model_len,
            kv_cache_tokens=options.kv_cache_tokens,
            refill_jobs=self._entrance.group,
        )

    async def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._death = self._death or "the engine is closed"
        self._stop_all()
        self._slots.close()
        self._device.leave()
        if self._core is not None:
            await self._core.close()


def _choices(request: GenerationRequest, words: list[Written], room_tokens: int) -> list[Written]:
    sampling = request.sampling.resolved()
    if is_forced(request):
        return [spelled(forced_text(request), sampling, room_tokens)] * len(words)
    if may_call(request) and _fault(request) == CALLS_TOOL:
        return [spelled(one.first_words + markup(request), sampling, room_tokens) for one in words]
    return words


def _fault(request: GenerationRequest) -> str:
    fault = request.metadata.get(FAULT_KEY, "").partition(":")[0]
    if fault and fault not in FAULTS:
        raise RequestRejected(FailureCode.INVALID_REQUEST, unknown_name("simulated fault", fault, FAULTS))
    return fault


def _slow_seconds(request: GenerationRequest) -> float:
    fault, _, seconds = request.metadata.get(FAULT_KEY, "").partition(":")
    if fault != "slow":
        return 0.0
    try:
        return float(seconds)
    except ValueError as error:
        message = f"simulated fault 'slow' needs seconds, as in slow:1.5; got {seconds!r}"
        raise RequestRejected(FailureCode.INVALID_REQUEST, message) from error
