"""What a cancel sends, and what its reply means; Celery is the reference for both."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from producer.cancellation import prepare_cancel, read_cancel_reply, task_revoked_event
from producer.contract import Failure, FailureCode
from producer.errors import NotCancellable, ResultExpired
from producer.jobs import CancelOutcome, Submission
from producer.outcome import read_outcome, revoked_result
from producer.submission import Destination

DONE_AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
DESTINATION = Destination(database=2, record_seconds=100, result_seconds=10)


def stored(status: str, message: str = "", kind: str = "TaskRevokedError") -> bytes:
    """Celery's JSON of an end."""
    error = {"exc_type": kind, "exc_message": [message], "exc_module": "celery.exceptions"}
    return json.dumps({"status": status, "result": error, "traceback": None, "task_id": "j"}).encode()


def test_the_result_is_the_one_that_celerys_backend_stores_for_a_revoked_task() -> None:
    """Field by field, in its order, but for the moment."""
    with Celery("compare", backend="redis://127.0.0.1:1/0", set_as_current=False) as app:
        error = app.backend.encode_result(TaskRevokedError("cancelled"), "REVOKED")
        meta = app.backend._get_result_meta(result=error, state="REVOKED", traceback=None, request=None)
        theirs: dict[str, Any] = json.loads(app.backend.encode(meta | {"task_id": "j"}))
    ours: dict[str, Any] = json.loads(revoked_result("j", DONE_AT))

    assert list(ours) == list(theirs)
    assert datetime.fromisoformat(ours.pop("date_done")) == DONE_AT
    assert datetime.fromisoformat(theirs.pop("date_done")).tzinfo is not None
    assert ours == theirs


def test_the_result_reads_as_a_cancelled_job_whose_status_comes_first() -> None:
    """Scripts look for the status in the first bytes."""
    result = revoked_result("j", DONE_AT)

    assert result.startswith(b'{"status":"REVOKED"')
    assert read_outcome(result) == Failure(code=FailureCode.CANCELLED, message="the job was cancelled")


def test_the_event_is_celerys_task_revoked_around_the_workers_name_and_the_time() -> None:
    """Without clock and utcoffset, which a receiver would go by."""
    node = json.dumps(json.dumps('w"\\ö@host'))[1:-1].encode()
    head, middle, tail = task_revoked_event("j")
    message = json.loads(head + node + middle + b"12.5" + tail)
    event = json.loads(message["body"])

    assert event.pop("pid") > 0
    assert event == {
        "type": "task-revoked",
        "uuid": "j",
        "terminated": False,
        "signum": None,
        "expired": False,
        "hostname": 'w"\\ö@host',
        "timestamp": 12.5,
    }
    assert message["properties"]["delivery_info"] == {"exchange": "celeryev", "routing_key": "task.revoked"}
    assert message["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("job", "token"),
    [("j", ""), (Submission("j", 1.0), ""), (Submission("j", 1.0, submission_token="t"), "t")],  # noqa: S106 - not a password
)
def test_a_submission_is_named_by_its_token_and_an_id_stands_for_whoever_has_it(
    job: str | Submission, token: str
) -> None:
    """The empty token is anybody's."""
    run = prepare_cancel(job, DESTINATION)

    assert list(run.keys) == ["fleet:job:j", "celery-task-meta-j"]
    assert run.arguments[:2] == ("j", token)
    assert run.arguments[3:8] == (10, 100, "fleet:cancels:", "fleet:cancelled:", "/2.celeryev/task.revoked")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ([b"cancelled"], CancelOutcome.CANCELLED),
        ([b"ended", stored("REVOKED", "cancelled")], CancelOutcome.ALREADY_CANCELLED),
        ([b"ended", stored("REVOKED", "terminated")], CancelOutcome.ALREADY_CANCELLED),
        ([b"ended", stored("REVOKED", "expired")], CancelOutcome.ENDED),
        ([b"ended", stored("FAILURE", "boom", "KeyError")], CancelOutcome.ENDED),
        ([b"ended", stored("SUCCESS")], CancelOutcome.ENDED),
    ],
)
def test_the_caller_learns_whether_it_was_this_call_an_earlier_one_or_too_late(
    reply: list[bytes], outcome: CancelOutcome
) -> None:
    """A revoke by Celery is a cancel too; an expiry is not."""
    assert read_cancel_reply("j", reply) is outcome


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (b"unknown", ResultExpired, "nothing is known of job j.*control.revoke"),
        (b"superseded", ResultExpired, "a later one has its id"),
        (b"untracked", NotCancellable, "control.revoke"),
    ],
)
def test_what_can_not_be_cancelled_is_an_error_that_says_what_to_do(
    kind: bytes, error: type[Exception], words: str
) -> None:
    """Celery's own revoke, where it is Celery's job."""
    with pytest.raises(error, match=words):
        read_cancel_reply("j", [kind])
