"""What a caller may catch.

::

    FleetError
    ├── InvalidRequest      the request breaks the contract; nothing was queued
    ├── UnknownModel        no worker ever served this model and nobody declared it; nothing was queued
    ├── QueueFull           as many jobs of this model wait as may; nothing was queued
    ├── FleetUnreachable    Redis could not be reached, or refused; asking again is safe
    │   └── SubmitFailed    the same while submitting: no job is half-queued
    │       └── BatchSubmitFailed   the same for many jobs: what is certain, and what to submit again
    ├── ResultNotReady      still queued or running when the caller's timeout ran out
    ├── ResultExpired       no such job: the id is wrong, or its result was kept long enough
    ├── NotCancellable      a Celery canvas sent this job: cancel it with Celery's own revoke
    ├── UnknownDeadLetter   no such dead letter: the id is wrong, or it was replayed or purged
    ├── NotReplayable       this dead letter names no job: look at it, then purge it
    └── InferenceFailed     the fleet answered: the job failed, and why (a code of the closed list)
"""

from collections.abc import Iterable

from producer.contract import Failure, FailureCode


class FleetError(Exception):
    """Root of everything that this package raises on purpose."""


class InvalidRequest(FleetError):
    """The request breaks the contract; the message names the field and what it may be. Nothing was queued."""

    code = FailureCode.INVALID_REQUEST


class UnknownModel(FleetError):
    """No worker ever served this model and no operator declared it. Nothing was queued."""

    code = FailureCode.MODEL_NOT_FOUND

    def __init__(self, model: str, known: Iterable[str]) -> None:
        self.model = model
        self.known = tuple(sorted(known))
        names = ", ".join(self.known) or "none yet"
        super().__init__(
            f"model {model!r} is not known to this fleet (known: {names}); start a worker that serves it, "
            f"or declare it with: fleet models declare {model}"
        )


class QueueFull(FleetError):
    """As many jobs of this model wait as its limit allows. Nothing was queued; submitting again later may work."""

    code = FailureCode.QUEUE_FULL

    def __init__(self, model: str, limit: int, depth: int) -> None:
        self.model = model
        self.limit = limit
        self.depth = depth
        super().__init__(
            f"{depth:,} jobs of model {model!r} wait, and at most {limit:,} may: submit again when some are done, or "
            f"let more wait with: fleet queues limit {model} --max-waiting-jobs N"
        )


class FleetUnreachable(FleetError):
    """Redis could not be reached, or refused; nothing was changed, and asking again is safe."""


class SubmitFailed(FleetUnreachable):
    """Redis could not be reached, or refused the job: it is queued whole or not at all, and may be submitted again."""


class ResultNotReady(FleetError):
    """The job was still queued or running when the caller's timeout ran out; asking again is fine."""


class ResultExpired(FleetError):
    """Nothing is known of this job: the id is wrong, or its result was kept for its lifetime and is gone."""


class NotCancellable(FleetError):
    """No producer submitted this job, so nothing tells its submissions apart: cancel it with Celery's own revoke."""


class UnknownDeadLetter(FleetError):
    """There is no such dead letter: the id is wrong, or somebody has replayed or purged it."""

    def __init__(self, letter_id: str) -> None:
        self.letter_id = letter_id
        super().__init__(
            f"no dead letter {letter_id!r}: the id is wrong, or it was replayed or purged; see: fleet dead list"
        )


class NotReplayable(FleetError):
    """This dead letter names no job that could be answered; replaying it would bury it again. Look at it, purge it."""


class InferenceFailed(FleetError):
    """The fleet answered that the job failed; ``code`` says why, ``retryable`` whether sending it again can help.

    This is also the exception that Celery stores for a failed ``fleet.generate``, so its arguments are plain JSON.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(str(code), message)
        self.code = FailureCode(code)
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """Whether the same request, sent again later, may succeed."""
        return self.code.retryable

    @property
    def failure(self) -> Failure:
        """The wire form."""
        return Failure(code=self.code, message=self.message)
