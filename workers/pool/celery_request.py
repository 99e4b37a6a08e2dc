"""What the pool tells Celery's ``Request`` beside outcomes; ``tests/contracts`` holds Celery to it."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import Retry
from celery.worker.request import Request
from celery.worker.state import task_ready

from workers.engine.base import EngineOverloaded
from workers.pool.job import Callbacks

TERMINATE: Final = "TERM"


def callbacks_of(
    pool: BasePool, target: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Callbacks:
    """The callbacks of one ``on_apply``; the request is who its success callback belongs to."""
    request: Request = options["callback"].__self__

    def put_off(reason: str) -> None:
        # What follows from it, an acknowledgement, changes nothing: the message waits in Redis under no lease.
        # The reason is given twice because monitors see only the second: Retry does not show its message.
        request.on_failure(_raised(Retry(reason, EngineOverloaded(reason))), send_failed_event=False, return_ok=True)

    def revoke() -> None:
        request.terminate(pool, TERMINATE)

    def forget() -> None:
        task_ready(request)

    return Callbacks(target, args, options["callback"], options["timeout_callback"], put_off, revoke, forget)


def delivery_tag(request: Mapping[str, Any]) -> str:
    """The tag in the request that Celery hands to the tracer."""
    return str(request.get("properties", {}).get("delivery_tag", ""))


def has_successors(body: object) -> bool:
    """Whether the decoded body of a task message names links or the rest of a chain."""
    match body:
        case (_, _, dict(embed)) | [_, _, dict(embed)]:
            return any(embed.get(name) for name in ("callbacks", "errbacks", "chain"))
    return False


def _raised(error: Exception) -> ExceptionInfo:
    """What Celery makes of an exception that a task raised."""
    try:
        _raise(error)
    except Exception:  # noqa: BLE001 - the one that was given
        return ExceptionInfo()


def _raise(error: Exception) -> NoReturn:
    raise error
