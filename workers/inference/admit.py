"""Step 2: is this job still worth starting, and is it for us?"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from producer.contract import FailureCode, GenerationRequest
from workers.engine.base import RequestRejected


def admit(request: GenerationRequest, served_model_name: str, now: float) -> None:
    """Return when the job may start.

    Args:
        request: the decoded request.
        served_model_name: the model behind this worker's queue.
        now: seconds since the epoch.

    Raises:
        RequestRejected: ``model_not_found`` for another model's job, ``expired`` past its deadline.
    """
    if request.model != served_model_name:
        raise RequestRejected(
            FailureCode.MODEL_NOT_FOUND,
            f"this queue serves {served_model_name!r}, not {request.model!r}; send it to fleet.{request.model}",
        )
    if is_expired(request, now):
        raise RequestRejected(FailureCode.EXPIRED, f"the deadline {request.deadline} passed before the job started")


def refuse_unnoted_webhook(request: GenerationRequest, system: Mapping[str, Any]) -> None:
    """Refuse a webhook that nobody will tell: only a producer notes it, with the ``fleet`` header.

    Raises:
        RequestRejected: with ``invalid_request``.
    """
    if request.webhook is not None and not system:
        raise RequestRejected(
            FailureCode.INVALID_REQUEST, "webhook: only Producer.submit and the gateway honour it; leave it out"
        )


def is_expired(request: GenerationRequest, now: float) -> bool:
    """Whether the deadline has passed."""
    return request.deadline is not None and request.deadline <= datetime.fromtimestamp(now, UTC)


def remaining_seconds(request: GenerationRequest, now: float) -> float | None:
    """Time left until the deadline; None without one."""
    return None if request.deadline is None else request.deadline.timestamp() - now
