"""vLLM's scheduler on a GPU that is shared: engines give way to those that owe a first token.

Two processes on a GPU take turns by time slices, so beside an engine that is full a prompt takes twice as long. A step
that runs cannot be stopped, but the next one can wait. vLLM also hands a step to the GPU before the one before has
ended (asynchronous scheduling); while first tokens are expected a yielding engine does not, or its next step would
already be on its way when one is owed.

These classes run in EngineCore; vLLM finds them by name (``scheduler_cls``) and calls that interface not public, so
they touch as little of it as they can: when a request comes, before and after a step, and whether there is anything to
do.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from workers.first_tokens import Announcement, FirstTokens, Yielding

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.request import Request

PassedOn: TypeAlias = Any
"""An argument that nobody here looks at: vLLM's versions differ in them."""

ANNOUNCED_IN_VARIABLE: Final = "FLEET_FIRST_TOKENS_ANNOUNCED_IN"
YIELDED_TO_VARIABLE: Final = "FLEET_FIRST_TOKENS_YIELDED_TO"
"""Files, with ``:`` between; both are set by the worker while it starts the engine's process."""


def variables(first_tokens: FirstTokens) -> dict[str, str]:
    """The environment that EngineCore needs for it; empty when there is nothing to do."""
    files = {
        ANNOUNCED_IN_VARIABLE: str(first_tokens.announced_in or ""),
        YIELDED_TO_VARIABLE: os.pathsep.join(map(str, first_tokens.yielded_to)),
    }
    return {name: value for name, value in files.items() if value}


def scheduler_class(first_tokens: FirstTokens, *, is_async: bool) -> str:
    """The name under which vLLM finds what takes part in it so."""
    if first_tokens.announced_in:
        chosen: type[Scheduler] = AnnouncingAsync if is_async else Announcing
    else:
        chosen = YieldsAsync if is_async else Yields
    return f"{chosen.__module__}.{chosen.__qualname__}"


class Announcing(Scheduler):
    """Of an engine for interactive jobs: tells while a first token is owed."""

    def __init__(self, *args: PassedOn, **options: PassedOn) -> None:
        super().__init__(*args, **options)
        self._announcement = Announcement(Path(os.environ[ANNOUNCED_IN_VARIABLE]))
        self._owed: set[str] = set()
        """Requests that have had no token yet."""

    def add_request(self, request: "Request") -> None:
        """As vLLM's; from here on its first token is owed."""
        super().add_request(request)
        self._owed.add(request.request_id)
        self._announcement.owe()

    def schedule(self, *args: PassedOn, **options: PassedOn) -> "SchedulerOutput":
        """As vLLM's."""
        if self._owed:  # a long prompt takes more steps than one announcement counts for
            self._announcement.owe()
        return super().schedule(*args, **options)

    def update_from_output(self, *args: PassedOn, **options: PassedOn) -> "dict[int, EngineCoreOutputs]":
        """As vLLM's; what had its first token in this step, or has ended, is owed none."""
        outputs = super().update_from_output(*args, **options)
        if self._owed:
            here = [self.requests[name] for name in self._owed if name in self.requests]
            self._owed = {request.request_id for request in here if not request.num_output_tokens}
            if not self._owed:
                self._announcement.settle()
        return outputs


class AnnouncingAsync(Announcing, AsyncScheduler):
    """The same with asynchronous scheduling."""


class Yields(Scheduler):
    """Of the engines beside it: begins no step while a first token is owed there, for a bounded time."""

    def __init__(self, *args: PassedOn, **options: PassedOn) -> None:
        super().__init__(*args, **options)
        self._yielding = Yielding([Path(path) for path in os.environ[YIELDED_TO_VARIABLE].split(os.pathsep)])
        self._steps_in_flight = 0

    def schedule(self, *args: PassedOn, **options: PassedOn) -> "SchedulerOutput":
        """As vLLM's, when it may."""
        self._yielding.wait()
        step = super().schedule(*args, **options)
        self._steps_in_flight += step.total_num_scheduled_tokens > 0
        return step

    def update_from_output(
        self, scheduler_output: "SchedulerOutput", *args: PassedOn, **options: PassedOn
    ) -> "dict[int, EngineCoreOutputs]":
        """As vLLM's."""
        self._steps_in_flight -= scheduler_output.total_num_scheduled_tokens > 0
        return super().update_from_output(scheduler_output, *args, **options)

    def has_requests(self) -> bool:
        """As vLLM's; nothing new while a step is on its way and first tokens are expected.

        EngineCore then waits for that step before it asks again.
        """
        if self._steps_in_flight and self._yielding.was_lately:
            return False
        return super().has_requests()


class YieldsAsync(Yields, AsyncScheduler):
    """The same with asynchronous scheduling."""
