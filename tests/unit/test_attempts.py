"""A job's attempts, as its record tells them."""

from typing import Any

import orjson
import pytest

from producer.attempts import MOST_ATTEMPTS, MOST_REASON_CHARACTERS, handed_back_line, lines_of
from producer.jobs import AttemptEnd, JobAttempt, JobState
from producer.outcome import status_of

RECORD = {"model": "m", "enqueued_at": "1.0", "state": "running", "worker": "b@h", "started_at": "30.5", "attempt": "2"}


def told(delivery: int, how: str | None = "lost") -> dict[str, Any]:
    """What the queue tells of an attempt that went wrong."""
    entry = {"at": "20.5", "claimed_at": "10.25", "worker": "a@h", "delivery": delivery, "event": "killed"}
    return entry if how is None else entry | {"how": how}


def attempts(meta: bytes | None = None, **fields: str) -> list[JobAttempt]:
    """Of a job with this record."""
    record = {name.encode(): value.encode() for name, value in (RECORD | fields).items()}
    return list(status_of("j", record, meta).attempts)


LOST = JobAttempt(1, "a@h", 10.25, 20.5, AttemptEnd.LOST, "killed")
RUNS = JobAttempt(2, "b@h", 30.5, None, AttemptEnd.RUNNING)


def test_the_latest_start_comes_after_those_that_went_wrong() -> None:
    """Each with its worker, its times and how it ended."""
    assert attempts(attempts=lines_of([told(1)])) == [LOST, RUNS]
    assert attempts(attempts=lines_of([told(1)]), state="retrying")[1].end is AttemptEnd.PUT_OFF


def test_a_record_without_a_list_tells_its_latest_start() -> None:
    """As older workers write it; and a job that waits has none."""
    assert attempts() == [RUNS]
    assert status_of("j", {b"model": b"m", b"enqueued_at": b"1.0"}, None).attempts == ()
    assert status_of("j", {b"model": b"m", b"state": b"cancelled"}, revoked()).attempts == ()


def revoked() -> bytes:
    """A cancelled job's result."""
    return orjson.dumps({"status": "REVOKED", "result": {"exc_message": ["cancelled"]}, "date_done": None})


def failed() -> bytes:
    """A failed job's result."""
    error = {"exc_type": "InferenceFailed", "exc_message": ["poisoned", "no more"]}
    return orjson.dumps({"status": "FAILURE", "result": error, "date_done": "1970-01-01T00:00:40+00:00"})


def test_how_the_last_one_ended_is_how_the_job_did() -> None:
    """Unless nobody began it again since it went wrong: a dead letter is answered without being run."""
    assert attempts(failed(), attempts=lines_of([told(1)])) == [
        LOST,
        JobAttempt(2, "b@h", 30.5, 40.0, AttemptEnd.FAILED),
    ]
    both = attempts(failed(), attempts=lines_of([told(1), told(2)]))
    assert [(one.attempt, one.end) for one in both] == [(1, AttemptEnd.LOST), (2, AttemptEnd.LOST)]


def test_one_that_was_handed_back_has_the_number_of_the_next() -> None:
    """It counts nothing; while nobody has begun again, it is told once."""
    line = handed_back_line(2, "b@h", 30.5, 32.0)
    waiting = attempts(state="queued", handed_back=line)
    assert waiting == [JobAttempt(2, "b@h", 30.5, 32.0, AttemptEnd.HANDED_BACK)]
    again = attempts(handed_back=line, started_at="35.0", attempts=lines_of([told(1)]))
    assert [(one.attempt, one.end) for one in again] == [
        (1, AttemptEnd.LOST),
        (2, AttemptEnd.HANDED_BACK),
        (2, AttemptEnd.RUNNING),
    ]


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("lost", AttemptEnd.LOST),
        ("suspect", AttemptEnd.INTERRUPTED),
        ("retry", AttemptEnd.PUT_OFF),
        ("a later version's", AttemptEnd.INTERRUPTED),
        (None, AttemptEnd.INTERRUPTED),
    ],
)
def test_the_queues_words_are_told_in_ours(how: str | None, end: AttemptEnd) -> None:
    """Also where an older worker's script says none."""
    assert attempts(attempts=lines_of([told(1, how)]))[0].end is end


def test_a_later_versions_line_is_read_as_far_as_it_is_known() -> None:
    """Workers may be newer than the gateway."""
    line = orjson.loads(lines_of([told(1)])) | {"end": "evicted", "more": 1}
    assert attempts(attempts=orjson.dumps(line).decode())[0].end is AttemptEnd.INTERRUPTED


def test_the_list_is_bounded() -> None:
    """The latest are kept, each with its number, and no reason is long."""
    history = [told(number) | {"event": "x" * 5_000, "claimed_at": str(number)} for number in range(1, 101)]
    lines = lines_of(history, first_attempt=3)
    kept = attempts(attempts=lines, attempt="103")
    assert [one.attempt for one in kept] == [*range(83, 103), 103]
    assert len(kept) == MOST_ATTEMPTS + 1
    assert {len(one.reason) for one in kept[:-1]} == {MOST_REASON_CHARACTERS}
    assert lines_of([]) == ""
    assert kept[-1].end is AttemptEnd.RUNNING


def test_a_success_tells_of_the_attempt_that_answered() -> None:
    """Also where no record does: the journal is advisory."""
    result = {
        "id": "j",
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "timings": {"total_seconds": 1.0},
        "worker": "c@h",
        "attempt": 3,
    }
    meta = orjson.dumps({"status": "SUCCESS", "result": result, "date_done": "1970-01-01T00:00:40+00:00"})
    status = status_of("j", {}, meta)
    assert status.state is JobState.SUCCEEDED
    assert status.attempts == (JobAttempt(3, "c@h", None, 40.0, AttemptEnd.SUCCEEDED),)
