"""Several jobs of one request: their keys, and what is left of them when not all could be queued."""

from collections.abc import Sequence
from typing import Final

from producer.async_client import AsyncProducer
from producer.batch import BatchSubmitFailed
from producer.contract import GenerationRequest
from producer.errors import FleetError, FleetUnreachable, QueueFull, ResultExpired
from producer.gateway.errors import BadParameter
from producer.gateway.metering import Desk
from producer.gateway.waiting import give_up
from producer.jobs import Submission, SubmitOutcome
from producer.prompting import MAX_NAME_CHARACTERS
from producer.submission import PreparedJob

MOST_KEY_CHARACTERS: Final = MAX_NAME_CHARACTERS - len("/99999")
"""Of a key of many jobs: each has its place behind it, and all of that is to be a job's key."""


def keyed(jobs: Sequence[GenerationRequest], idempotency_key: str | None) -> list[GenerationRequest]:
    """The jobs of a request with this key: each has its place behind it.

    Raises:
        BadParameter: that leaves no room for places.
    """
    if idempotency_key is None:
        return list(jobs)
    if len(idempotency_key) > MOST_KEY_CHARACTERS:
        raise BadParameter(
            "header.idempotency-key",
            f"Idempotency-Key: at most {MOST_KEY_CHARACTERS} characters where one request makes several jobs",
        )
    return [job.model_copy(update={"idempotency_key": f"{idempotency_key}/{at}"}) for at, job in enumerate(jobs)]


async def submitted(
    fleet: AsyncProducer, desk: Desk, jobs: Sequence[GenerationRequest], *, is_shared: bool
) -> list[SubmitOutcome]:
    """Queue them, each or not; ``is_shared``: they have keys, by which somebody may come back for them.

    Raises:
        NotAllowed: their key has not as much left.
        FleetUnreachable: Redis could not be reached, or refused; the error says what became of the jobs.
    """
    await desk.charge(jobs)
    try:
        return await fleet.submit_many(jobs)
    except BatchSubmitFailed as error:
        raise await _given_up(fleet, error, is_shared=is_shared) from error


async def submitted_whole(
    fleet: AsyncProducer, desk: Desk, jobs: Sequence[GenerationRequest], *, is_shared: bool
) -> list[Submission]:
    """Queue all of them or none. What was queued beside a refused one is cancelled, unless somebody may come back.

    Raises:
        NotAllowed: their key has not as much left.
        FleetError: why one was refused; of full queues the one that has room last.
    """
    outcomes = await submitted(fleet, desk, jobs, is_shared=is_shared)
    refusals = [outcome.error for outcome in outcomes if outcome.error is not None]
    if refusals:
        queued = [outcome.submission for outcome in outcomes if outcome.submission is not None]
        await give_up(fleet, queued, is_shared=is_shared)
        await desk.settle(0)
        raise last_with_room(refusals) or refusals[0]
    return [outcome.unwrap() for outcome in outcomes]


def last_with_room(errors: Sequence[FleetError | None]) -> QueueFull | None:
    """The full queue that has room last, where that is what was wrong with each."""
    full = [error for error in errors if isinstance(error, QueueFull)]
    return max(full, key=lambda error: error.retry_after_seconds) if len(full) == len(errors) else None


async def _given_up(fleet: AsyncProducer, error: BatchSubmitFailed, *, is_shared: bool) -> FleetUnreachable:
    """What to tell of a batch that Redis ended in the middle, of which nothing is to be left that nobody waits for."""
    if is_shared:
        return FleetUnreachable(
            f"{error.trouble}. Send the request again with its Idempotency-Key: no job is made twice"
        )
    jobs = [outcome.submission.job_id for outcome in error.outcomes if outcome.submission is not None]
    jobs += [job.job_id for job in error.unsettled if isinstance(job, PreparedJob)]
    for place, job_id in enumerate(jobs):
        try:
            await fleet.cancel(job_id)
        except ResultExpired:
            continue  # of the unsettled one that was not queued
        except FleetUnreachable:
            left = ", ".join(jobs[place:])
            return FleetUnreachable(f"{error.trouble}. These jobs may be queued, and could not be cancelled: {left}")
    return FleetUnreachable(f"{error.trouble}. What was queued of the batch is cancelled")
