"""What a caller may catch.

::

    FleetError
    ├── InvalidRequest      the request breaks the contract; nothing was queued
    ├── UnknownModel        no worker ever served this model and nobody declared it; nothing was queued
    ├── QueueFull           as many jobs of this model, or of its tenant, wait as may; nothing was queued
    │   ├── RedisFull       Redis has no memory for more jobs; nothing was queued
    │   └── OutboxFull      as many webhooks wait as may; nothing was queued
    ├── FleetUnreachable    Redis could not be reached, or refused; asking again is safe
    │   └── SubmitFailed    the same while submitting: no job is half-queued
    │       └── BatchSubmitFailed   the same for many jobs: what is certain, and what to submit again
    ├── ResultNotReady      still queued or running when the caller's timeout ran out
    ├── ResultExpired       no such job: the id is wrong, or its result was kept long enough
    ├── TurnInProgress      the turns before this one were not answered in time; nothing was queued
    ├── UnknownConversation no such conversation: the id is wrong, or it was kept for its lifetime
    ├── NotCancellable      a Celery canvas sent this job: cancel it with Celery's own revoke
    ├── UnknownDeadLetter   no such dead letter: the id is wrong, or it was replayed or purged
    ├── UnknownWebhook      no such webhook in the outbox: told, or its job has not ended, or the id is wrong
    ├── NotReplayable       this dead letter names no job: look at it, then purge it
    └── InferenceFailed     the fleet answered: the job failed, and why (a code of the closed list)
"""

from collections.abc import Iterable
from typing import Final

from producer.contract import Failure, FailureCode

REDIS_FULL_SECONDS: Final = 5
"""When to ask a full Redis again: how soon it has memory, nobody knows."""
MIB: Final = 1024 * 1024


class FleetError(Exception):
    """Root of everything that this package raises on purpose."""


class InvalidRequest(FleetError):
    """The request breaks the contract; the message names the field and what it may be. Nothing was queued."""

    code = FailureCode.INVALID_REQUEST


class UnknownModel(FleetError):
    """No worker ever served this model and no operator declared it. Nothing was queued."""

    code = FailureCode.MODEL_NOT_FOUND

    def __init__(
        self, model: str, known: Iterable[str], alias_of: str | None = None, *, is_adapter: bool = False
    ) -> None:
        self.model = model
        self.alias_of = alias_of
        """The model whose other name this is: a job is to be submitted under that one."""
        self.is_adapter = is_adapter
        """Whether it is an adapter of that model, which the job is to name too."""
        self.known = tuple(sorted(known))
        names = ", ".join(self.known) or "none yet"
        super().__init__(
            f"model {model!r} is not known to this fleet (known: {names}); start a worker that serves it, "
            f"or declare it with: fleet models declare {model}"
        )


class QueueFull(FleetError):
    """As many jobs of this model wait as its limit allows, or as many of the tenant's as its own limit does.

    Nothing was queued; submitting again later may work.
    """

    code = FailureCode.QUEUE_FULL

    def __init__(
        self, model: str, limit: int, depth: int, tenant: str | None = None, retry_after_seconds: int = 1
    ) -> None:
        self.model = model
        self.limit = limit
        self.depth = depth
        """Jobs that wait: the tenant's where its limit was met, all of the model's otherwise."""
        self.tenant = tenant
        """Whose limit was met; None for the model's."""
        self.retry_after_seconds = retry_after_seconds
        """When to expect room, at the rate at which the queue drains; 1 to 120, and 1 where nothing is known."""
        whose = f"of model {model!r}" if tenant is None else f"of tenant {tenant!r} for model {model!r}"
        how = f"queues limit {model}" if tenant is None else f"tenants set {tenant}"
        super().__init__(
            f"{depth:,} jobs {whose} wait, and at most {limit:,} may: submit again in about {retry_after_seconds} s, "
            f"when some are done, or let more wait with: fleet {how} --max-waiting-jobs N"
        )


class RedisFull(QueueFull):
    """Redis has no memory for more jobs: what is left is for those that it has taken. Nothing was queued.

    ``limit`` and ``depth`` are bytes: from how many in use on no job is taken, and how many are; 0 where the server
    does not tell.
    """

    def __init__(self, model: str, limit: int, depth: int) -> None:
        super().__init__(model, limit, depth, retry_after_seconds=REDIS_FULL_SECONDS)
        known = f" ({depth / MIB:,.1f} MiB in use, and jobs are taken below {limit / MIB:,.1f})" if limit else ""
        sentence = (
            f"Redis has no memory for more jobs{known}: submit again in about {REDIS_FULL_SECONDS} s, when some are "
            "done; what takes its memory: docs/runbook.md, FleetRedisMemoryHigh"
        )
        self.args = (sentence,)


class OutboxFull(QueueFull):
    """As many webhooks wait as may, so no job that has one is taken. Nothing was queued."""

    def __init__(self, model: str, limit: int, depth: int) -> None:
        super().__init__(model, limit, depth)
        sentence = (
            f"{depth:,} webhooks wait to be told, and at most {limit:,} may: does anybody deliver them "
            "(fleet webhooks deliver, or a gateway)? Leave webhook out, or submit again when some are told"
        )
        self.args = (sentence,)


class FleetUnreachable(FleetError):
    """Redis could not be reached, or refused; nothing was changed, and asking again is safe."""


class SubmitFailed(FleetUnreachable):
    """Redis could not be reached, or refused the job: it is queued whole or not at all, and may be submitted again."""


class ResultNotReady(FleetError):
    """The job was still queued or running when the caller's timeout ran out; asking again is fine."""


class ResultExpired(FleetError):
    """Nothing is known of this job: the id is wrong, or its result was kept for its lifetime and is gone."""


class TurnInProgress(FleetError):
    """The turns before this one were not answered in time. Nothing was queued; submitting again later may work."""


class UnknownConversation(FleetError):
    """There is no such conversation: the id is wrong, or it was kept for its lifetime after its last turn."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        super().__init__(
            f"no conversation {conversation_id!r}: the id is wrong, or it was forgotten, or kept for its lifetime"
        )


class NotCancellable(FleetError):
    """No producer submitted this job, so nothing tells its submissions apart: cancel it with Celery's own revoke."""


class UnknownDeadLetter(FleetError):
    """There is no such dead letter: the id is wrong, or somebody has replayed or purged it."""

    def __init__(self, letter_id: str) -> None:
        self.letter_id = letter_id
        super().__init__(
            f"no dead letter {letter_id!r}: the id is wrong, or it was replayed or purged; see: fleet dead list"
        )


class UnknownWebhook(FleetError):
    """There is no such webhook to tell: it was told, its job has not ended, or the id is wrong."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        super().__init__(
            f"no webhook {event_id!r} to tell: it was told, its job has not ended, or the id is wrong; see: "
            "fleet webhooks list"
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
