"""Celery's tracer, cut to what it does for a job that succeeded and that nothing hangs on: it stores the result.

Everything else goes to Celery's own: failures, links, chains, chords, groups, and any job while somebody listens to
the task signals. ``tests/contracts/test_short_trace.py`` compares the two.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from celery import signals
from pydantic_core import PydanticSerializationError

from producer.contract import GenerationResult
from workers.pool.celery_request import has_successors
from workers.pool.outcome import current_outcome

_SIGNALS: Final = (signals.task_prerun, signals.task_postrun, signals.task_success)


class StoringBackend(Protocol):
    """A result backend that takes results as they are to be stored."""

    def store_success(self, task_id: str, result: str) -> bool:
        """End the current delivery with ``result``, which is JSON; False when it is not this process' to end."""


def trace(backend: StoringBackend, target: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - the tracer's
    """Record the current outcome; what Celery's tracer ``target`` returns: (failed, value, runtime in seconds)."""
    outcome = current_outcome.get()
    if (
        type(outcome) is GenerationResult
        and is_plain(args[2], args[3])
        and not any(each.receivers for each in _SIGNALS)
    ):
        try:
            text = outcome.model_dump_json(exclude_none=True)
        except PydanticSerializationError:  # a lone surrogate, which JSON can hold only escaped
            return target(*args)
        if backend.store_success(args[1], text):
            return 0, shown(outcome), 0.0
    failed, value, runtime_seconds = target(*args)
    if isinstance(outcome, GenerationResult) and not failed:
        value = shown(outcome)
    return failed, value, runtime_seconds


def is_plain(request: Mapping[str, Any], body: object) -> bool:
    """Whether all that follows from a success is a stored result."""
    is_related = request.get("ignore_result") or request.get("group") or request.get("parent_id")
    return not is_related and isinstance(body, tuple | list) and not has_successors(body) and not body[2].get("chord")


def shown(result: GenerationResult) -> str:
    """What monitors see of an answer, which is not theirs to read: Celery would show its beginning."""
    reasons = ", ".join(str(choice.finish_reason) for choice in result.choices)
    return f"{result.usage.completion_tokens} tokens, {reasons}"
