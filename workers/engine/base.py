"""The engine seam: what a worker needs of an engine, and nothing that is vLLM's alone.

Every engine lives on one asyncio loop, in one thread. ``tests/contracts/test_engine.py`` is the specification that
all of them pass.

::

    EngineError
    ├── EngineOptionsInvalid   an option is unknown or refused: fix the settings, a restart does not help
    ├── EngineStartFailed      the engine did not come up; the message is the cause in one line
    ├── RequestRejected        this request can never work: answer it with ``code``, never retry
    ├── EngineOverloaded       no room now: the same request may work later, or elsewhere
    ├── GenerationFailed       this request broke inside a living engine
    ├── CannotContinue         an answer that was begun elsewhere can not go on where it ended: begin anew
    └── EngineDead             the engine is gone: give every job back and end the process
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from producer.contract import FailureCode, GenerationRequest, TokenLogprob, ToolCall
from workers.engine.entrance import NO_PATIENCE, Patience
from workers.first_tokens import ALONE, FirstTokens


class EngineError(Exception):
    """Root of what an engine raises; private to the worker."""


class EngineOptionsInvalid(EngineError):
    """An engine option is unknown or refused; the message names it and the nearest known one."""


class EngineStartFailed(EngineError):
    """The engine did not come up; the message is the cause in one readable line."""


class RequestRejected(EngineError):
    """This request can never be answered by this engine; ``code`` says why."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class EngineOverloaded(EngineError):
    """The engine takes no more at this moment; the same request may work later."""


class GenerationFailed(EngineError):
    """The engine lives, but this request broke inside it."""


class CannotContinue(EngineError):
    """The answer can not go on where another attempt ended; the same request from its beginning may work."""


class EngineDead(EngineError):
    """The engine is gone and will not come back in this process."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine is started with."""

    model: str
    """A folder, or a name that the model hub knows."""
    served_model_name: str
    """The name that jobs use."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Engine options under vLLM's own names (``AsyncEngineArgs``), passed through."""
    refill_jobs: int = 0
    """Patient requests that enter together; 0: the engine's choice. See :class:`workers.engine.entrance.Entrance`."""
    tool_call_parser: str = ""
    """Who reads the tool calls that the model writes in its own way, by vLLM's name; empty: nobody."""
    lora_adapters: Mapping[str, str] = field(default_factory=dict)
    """The folder of each adapter that requests may name."""
    first_tokens: FirstTokens = ALONE
    """How it shares its GPU with engines beside it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """How far another attempt came with the one choice of this request."""

    token_ids: tuple[int, ...]
    text: str
    """What was told of them: the last tokens may say more than that."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One attempt at one job."""

    attempt_id: str
    """Unique per attempt, never reused: two deliveries of one job must not meet in the engine."""
    request: GenerationRequest
    priority: int = 0
    """Scheduling priority, lower first; engines without priority scheduling ignore it."""
    patience: Patience = NO_PATIENCE
    """Whether it may wait for others to begin with, before the engine begins it."""
    trace_headers: Mapping[str, str] | None = None
    """W3C's, for an engine that traces by itself; None: nobody traces."""
    begun: Begun | None = None
    """Go on from there: increments have what comes after, as if one attempt had done it all."""


@dataclass(frozen=True, slots=True)
class ChoiceIncrement:
    """What is new of one choice."""

    index: int
    text: str
    token_count: int
    """Tokens in this increment, not so far."""
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    token_ids: tuple[int, ...] = ()
    """For a streamed request."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """All of this choice, in its last increment; they are no part of ``text``."""
    retold_tokens: int = 0
    """So many tokens at the end of what another attempt told are void, having said nothing yet: these are in their
    place. In the first increment only."""


@dataclass(frozen=True, slots=True)
class Increment:
    """What is new of one request. Without streaming there is exactly one, with everything in it."""

    choices: tuple[ChoiceIncrement, ...]
    prompt_tokens: int
    cached_tokens: int = 0
    first_token_seconds: float | None = None
    """From ``generate`` to the first token, once known."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What fits into the engine at once."""

    max_num_seqs: int
    """Sequences that run together."""
    max_model_len: int
    """Longest prompt plus output of one sequence, in tokens."""
    kv_cache_tokens: int | None = None
    """Tokens whose KV cache fits, over all sequences; None where the engine does not tell."""
    kv_block_tokens: int | None = None
    """Tokens per block of that cache: each sequence takes whole blocks. None where the engine does not tell."""
    refill_jobs: int = 1
    """Requests that had best begin together when the engine is nearly full; 1: each as soon as it can."""


class Engine(ABC):
    """A resident model that generates for many requests at once (continuous batching)."""

    @abstractmethod
    async def start(self) -> None:
        """Load the model; return when a request would be served. Called once.

        Raises:
            EngineOptionsInvalid: the options are wrong; a restart does not help.
            EngineStartFailed: anything else, with the cause in one line.
        """

    @abstractmethod
    def generate(self, attempt: EngineRequest) -> AsyncGenerator[Increment, None]:
        """Generate for one attempt; concurrent calls share the engine.

        Cancelling the consuming task, or closing the iterator, frees the engine's slot.

        Raises (from the iteration):
            RequestRejected: bad request, e.g. longer than the context.
            EngineOverloaded: no room now.
            GenerationFailed: this request broke, the engine lives.
            CannotContinue: it can not go on from what was begun.
            EngineDead: the engine is gone.
        """

    @abstractmethod
    async def abort(self, attempt_id: str) -> None:
        """Stop one attempt and free its slot; its iterator ends with finish reason ``abort``. Unknown ids are fine."""

    @abstractmethod
    async def check_health(self) -> None:
        """Return if the engine can serve. Cheap; called about once a second.

        Raises:
            EngineDead: it can not, and never will again.
        """

    @abstractmethod
    def capacity(self) -> Capacity:
        """What fits at once; known after :meth:`start`."""

    def generated_tokens(self) -> int | None:
        """Tokens generated since the start, those of unfinished answers too; None where the engine does not count."""
        return None

    @abstractmethod
    async def close(self) -> None:
        """Stop the engine and free its memory. Idempotent; safe after a failed, cancelled or missing start or a death.

        What still runs ends as if aborted; a later :meth:`generate` or :meth:`check_health` raises EngineDead.
        """
