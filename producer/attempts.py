"""What a job's record says of its attempts: the lines that workers write, and how they are read.

A job that is answered by its first attempt has none: its record says who began it, and its result how it ended.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from producer.jobs import AttemptEnd, JobAttempt, JobState, JobStatus

MOST_ATTEMPTS: Final = 20
"""The latest ones that went wrong; of those that were handed back as many (``workers/journal.lua``)."""
MOST_REASON_CHARACTERS: Final = 200
WENT_WRONG: Final = "attempts"
"""The record's field of attempts that went wrong, by the queue's own account: a JSON object a line."""
HANDED_BACK: Final = "handed_back"
"""The same of those that a stopping worker handed back, by its account."""

_ENDS: Final = {"lost": AttemptEnd.LOST, "retry": AttemptEnd.PUT_OFF}
"""By the queue's word for it; any other, or none, is an interruption."""
_OF_STATE: Final = {
    JobState.QUEUED: AttemptEnd.HANDED_BACK,
    JobState.RUNNING: AttemptEnd.RUNNING,
    JobState.RETRYING: AttemptEnd.PUT_OFF,
    JobState.SUCCEEDED: AttemptEnd.SUCCEEDED,
    JobState.FAILED: AttemptEnd.FAILED,
    JobState.CANCELLED: AttemptEnd.CANCELLED,
}


def lines_of(history: Sequence[Mapping[str, Any]], first_attempt: int = 1) -> str:
    """The lines of attempts that went wrong, by what the queue tells of each; empty where none did."""
    numbered = list(enumerate(history, first_attempt))[-MOST_ATTEMPTS:]
    return "\n".join(_line(_went_wrong(number, entry)) for number, entry in numbered)


def _went_wrong(number: int, entry: Mapping[str, Any]) -> JobAttempt:
    return JobAttempt(
        attempt=number,
        worker=entry["worker"],
        begun_at=float(entry["claimed_at"]),
        ended_at=float(entry["at"]),
        end=_ENDS.get(entry.get("how", ""), AttemptEnd.INTERRUPTED),
        reason=entry["event"][:MOST_REASON_CHARACTERS],
    )


def handed_back_line(attempt: int, worker: str, begun_at: float, ended_at: float) -> str:
    """The line of an attempt that its worker gives back unfinished."""
    return _line(JobAttempt(attempt, worker, begun_at, ended_at, AttemptEnd.HANDED_BACK))


def _line(attempt: JobAttempt) -> str:
    return orjson.dumps(attempt).decode()


def attempts_of(status: JobStatus, fields: Mapping[str, str]) -> tuple[JobAttempt, ...]:
    """All that is known of the job's attempts, the first one first: what its record tells, and its latest start."""
    told = sorted((*_read(fields.get(WENT_WRONG)), *_read(fields.get(HANDED_BACK))), key=_begun_at)
    has_begun = status.started_at is not None or status.state is JobState.SUCCEEDED
    if not has_begun or _is_told(status, told):
        return tuple(told)
    end = _OF_STATE[status.state]
    return (*told, JobAttempt(status.attempt, status.worker, status.started_at, status.ended_at, end))


def _is_told(status: JobStatus, told: Iterable[JobAttempt]) -> bool:
    """Whether the latest start that the record knows is one of these: nobody has begun again since."""
    return any(
        one.begun_at == status.started_at
        if one.end is AttemptEnd.HANDED_BACK  # the next one has the same number
        else status.attempt is not None and one.attempt is not None and one.attempt >= status.attempt
        for one in told
    )


def _read(lines: str | None) -> Iterator[JobAttempt]:
    for line in (lines or "").split("\n"):
        if line:
            fields = orjson.loads(line)
            # A later version's word is none of ours.
            end = AttemptEnd(fields["end"]) if fields["end"] in set(AttemptEnd) else AttemptEnd.INTERRUPTED
            times = fields["begun_at"], fields["ended_at"]
            yield JobAttempt(fields["attempt"], fields["worker"], *times, end, fields["reason"])


def _begun_at(attempt: JobAttempt) -> float:
    return attempt.begun_at or 0.0
