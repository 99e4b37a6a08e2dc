"""Submitting jobs by the enqueue script; one that names a model otherwise, or an adapter of it, is sent once more."""

from collections.abc import Awaitable, Callable, Sequence

from producer.errors import UnknownModel
from producer.jobs import Submission
from producer.script import ScriptRun
from producer.submission import Destination, PreparedJob, Refusal, enqueue_run, read_replies, renamed

Found = list[Submission | Refusal]
"""What became of each job."""


def enqueued(jobs: Sequence[PreparedJob], destination: Destination, enqueue: Callable[[ScriptRun], bytes]) -> Found:
    """Submit these; ``enqueue`` runs the script."""
    return resolved(jobs, read_replies(jobs, enqueue(enqueue_run(jobs, destination))), destination, enqueue)


def resolved(
    jobs: Sequence[PreparedJob], found: Found, destination: Destination, enqueue: Callable[[ScriptRun], bytes]
) -> Found:
    """What became of these, of which ``found`` is known; those that have another name are sent again."""
    if again := _named_otherwise(jobs, found):
        others = list(again.values())
        replies = read_replies(others, enqueue(enqueue_run(others, destination)))
        return _with(found, dict(zip(again, replies, strict=True)))
    return found


async def enqueued_async(
    jobs: Sequence[PreparedJob], destination: Destination, enqueue: Callable[[ScriptRun], Awaitable[bytes]]
) -> Found:
    """Submit these; ``enqueue`` runs the script."""
    found = read_replies(jobs, await enqueue(enqueue_run(jobs, destination)))
    if again := _named_otherwise(jobs, found):
        others = list(again.values())
        replies = read_replies(others, await enqueue(enqueue_run(others, destination)))
        return _with(found, dict(zip(again, replies, strict=True)))
    return found


def settled(found: Submission | Refusal) -> Submission:
    """The submission of a job that was submitted alone.

    Raises:
        UnknownModel: the fleet takes no jobs for this model.
        QueueFull: its queue has as many waiting jobs as it may have.
        InvalidRequest: the idempotency key names a job with another body.
    """
    if isinstance(found, Submission):
        return found
    raise found


def _named_otherwise(jobs: Sequence[PreparedJob], found: Found) -> dict[int, PreparedJob]:
    """By place. They keep their ids: sending them twice makes no second job."""
    return {
        at: renamed(jobs[at], each.alias_of, each.model if each.is_adapter else None)
        for at, each in enumerate(found)
        if isinstance(each, UnknownModel) and each.alias_of is not None
    }


def _with(found: Found, replies: dict[int, Submission | Refusal]) -> Found:
    return [replies.get(at, each) for at, each in enumerate(found)]
