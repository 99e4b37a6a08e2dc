"""Steps 2 and 4 of answering: who may start, and what an exception means."""

from datetime import UTC, datetime, timedelta

import pytest

from producer.contract import FailureCode, GenerationRequest
from workers.engine.base import EngineDead, EngineOverloaded, GenerationFailed, RequestRejected
from workers.inference.admit import admit, refuse_unnoted_webhook, remaining_seconds
from workers.inference.classify import Failed, GivenBack, classify

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def request(deadline: datetime | None = None) -> GenerationRequest:
    """A request for model ``m``."""
    return GenerationRequest(model="m", prompt="x", deadline=deadline)


def test_a_job_before_its_deadline_is_admitted_with_the_time_left() -> None:
    """The time left bounds generation."""
    job = request(NOW + timedelta(seconds=5))
    admit(job, "m", NOW.timestamp())
    assert remaining_seconds(job, NOW.timestamp()) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("served", "deadline", "code"),
    [
        ("other", None, FailureCode.MODEL_NOT_FOUND),
        ("m", NOW, FailureCode.EXPIRED),
        ("m", NOW - timedelta(seconds=1), FailureCode.EXPIRED),
    ],
)
def test_a_job_for_another_model_or_past_its_deadline_is_refused(
    served: str, deadline: datetime | None, code: FailureCode
) -> None:
    """The engine never sees it."""
    with pytest.raises(RequestRejected) as refused:
        admit(request(deadline), served, NOW.timestamp())
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (  # the caller's fault: answered, never retried
            RequestRejected(FailureCode.CONTEXT_LENGTH_EXCEEDED, "too long"),
            Failed(FailureCode.CONTEXT_LENGTH_EXCEEDED, "too long"),
        ),
        (  # nobody's fault: another attempt
            EngineOverloaded("full"),
            Failed(FailureCode.ENGINE_FAILED, "full", retry_elsewhere=True),
        ),
        (GenerationFailed("nan"), Failed(FailureCode.ENGINE_FAILED, "nan")),  # this request broke the engine's step
        (EngineDead("gone"), GivenBack("gone")),  # not answered here at all
        (
            ZeroDivisionError("oops"),
            Failed(FailureCode.INTERNAL, "ZeroDivisionError: oops"),
        ),  # our bug, still an answer
    ],
)
def test_every_error_has_one_meaning(error: Exception, verdict: Failed | GivenBack) -> None:
    """One pure function decides."""
    assert classify(error) == verdict


def test_a_webhook_that_no_producer_noted_is_refused() -> None:
    """A stock Celery sender's: nobody would tell it, and that would look like an answer."""
    noted = GenerationRequest(model="m", prompt="x", webhook="https://example.org/")
    refuse_unnoted_webhook(noted, {"submission_token": "t"})
    refuse_unnoted_webhook(request(), {})
    with pytest.raises(RequestRejected, match=r"webhook: only Producer\.submit"):
        refuse_unnoted_webhook(noted, {})
