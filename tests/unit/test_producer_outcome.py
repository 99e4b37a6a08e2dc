"""What Celery stored about a job, read as a result, a failure or a status."""

import json
from collections.abc import Mapping

import pytest

from producer.contract import Failure, FailureCode
from producer.errors import InferenceFailed, ResultExpired
from producer.jobs import JobOutcome, JobState
from producer.outcome import answer, read_outcome, status_of
from tests.finishing import generation_result


def stored(status: str, result: object = None) -> bytes:
    """Celery's JSON."""
    return json.dumps({"status": status, "result": result, "traceback": None, "task_id": "j"}).encode()


def raised(kind: str, *arguments: object, module: str = "somewhere") -> dict[str, object]:
    """Celery's JSON of an exception."""
    return {"exc_type": kind, "exc_message": list(arguments), "exc_module": module}


RESULT = generation_result("j")
RECORD = {b"token": b"t", b"model": b"m", b"enqueued_at": b"1000.25"}


@pytest.mark.parametrize("status", ["PENDING", "RECEIVED", "STARTED", "RETRY", "ANYTHING"])
def test_a_state_that_is_not_final_is_no_outcome(status: str) -> None:
    """A retried job goes on."""
    meta = stored(status, raised("EngineBusy", "engine_failed", "full", module="producer.errors"))

    assert read_outcome(meta) is None
    assert answer("j", has_record=False, meta=meta) is None


@pytest.mark.parametrize(
    ("meta", "code", "words"),
    [
        (stored("FAILURE", raised("InferenceFailed", "poisoned", "it kills")), "poisoned", "it kills"),
        (
            stored("FAILURE", raised("EngineBusy", "engine_failed", "no room", module="producer.errors")),
            "engine_failed",
            "no room",
        ),
        (stored("FAILURE", raised("InferenceFailed", "new_code", "from the future")), "internal", "from the future"),
        (stored("FAILURE", raised("TimeLimitExceeded", 30)), "expired", "time limit"),
        (stored("FAILURE", raised("SoftTimeLimitExceeded")), "expired", "time limit"),
        (stored("FAILURE", raised("NotRegistered", "fleet.other")), "invalid_request", "fleet.other"),
        (stored("FAILURE", raised("WorkerLostError", "signal 9")), "internal", "WorkerLostError: signal 9"),
        (stored("FAILURE", {"exc_type": "KeyError", "exc_message": "'x'"}), "internal", "KeyError: 'x'"),
        (stored("FAILURE", "text"), "internal", "text"),
        (stored("REVOKED", raised("TaskRevokedError", "expired")), "expired", "deadline"),
        (stored("REVOKED", raised("TaskRevokedError", "terminated")), "cancelled", "cancelled"),
        (stored("SUCCESS", {"id": "j"}), "internal", "not a result"),
        (stored("SUCCESS", None), "internal", "not a result"),
        (b"{broken", "internal", "not JSON"),
        (b"[1]", "internal", "no object"),
    ],
)
def test_every_end_without_an_answer_has_a_code_of_the_closed_list(meta: bytes, code: str, words: str) -> None:
    """Whatever Celery, a worker or a stranger stored."""
    outcome = read_outcome(meta)

    assert isinstance(outcome, Failure)
    assert (outcome.code, words in outcome.message) == (code, True)
    with pytest.raises(InferenceFailed) as caught:
        answer("j", has_record=True, meta=meta)
    assert caught.value.failure == outcome


def test_an_answer_is_read_back_as_the_workers_result() -> None:
    """As Celery stores it."""
    meta = stored("SUCCESS", RESULT.model_dump(mode="json"))

    assert answer("j", has_record=False, meta=meta) == RESULT


def test_json_that_only_python_writes_is_read_too() -> None:
    """Celery uses Python's json, which writes lone surrogates; metadata may hold one."""
    result = RESULT.model_dump(mode="json") | {"metadata": {"k": "\ud800"}}

    outcome = read_outcome(stored("SUCCESS", result))

    assert outcome is not None
    assert not isinstance(outcome, Failure)
    assert outcome.metadata == {"k": "\ud800"}


def test_a_job_without_record_and_result_is_gone_not_pending() -> None:
    """A wrong id must not be waited for."""
    with pytest.raises(ResultExpired, match="nothing is known of job j"):
        answer("j", has_record=False, meta=None)
    assert answer("j", has_record=True, meta=None) is None


@pytest.mark.parametrize(
    ("record", "meta", "state"),
    [
        (RECORD, None, JobState.QUEUED),
        (RECORD | {b"state": b"running"}, None, JobState.RUNNING),
        (RECORD, stored("STARTED", {"pid": 1, "hostname": "fleet@a"}), JobState.RUNNING),
        (RECORD | {b"state": b"running"}, stored("RETRY", raised("EngineBusy")), JobState.RETRYING),
        (RECORD | {b"state": b"running"}, stored("SUCCESS", RESULT.model_dump(mode="json")), JobState.SUCCEEDED),
        ({}, stored("SUCCESS", RESULT.model_dump(mode="json")), JobState.SUCCEEDED),
        (RECORD, stored("FAILURE", raised("InferenceFailed", "poisoned", "x")), JobState.FAILED),
        (RECORD, stored("REVOKED", raised("TaskRevokedError", "expired")), JobState.FAILED),
        (RECORD, stored("REVOKED", raised("TaskRevokedError", "revoked")), JobState.CANCELLED),
        (RECORD, stored("FAILURE", raised("InferenceFailed", "cancelled", "x")), JobState.CANCELLED),
    ],
)
def test_the_state_comes_from_the_result_first_and_the_record_second(
    record: Mapping[bytes, bytes], meta: bytes | None, state: JobState
) -> None:
    """A worker's note may be older than the result."""
    status = status_of("j", record, meta)

    assert status.state is state
    assert (status.failure is not None) == (state in {JobState.FAILED, JobState.CANCELLED})


def test_a_status_says_who_works_on_what_since_when() -> None:
    """From the record while the job runs, from the result when the record is gone."""
    running = status_of("j", RECORD | {b"state": b"running", b"worker": b"fleet@a", b"started_at": b"1001.5"}, None)
    ended = status_of("j", {}, stored("SUCCESS", RESULT.model_dump(mode="json")))

    assert (running.model, running.worker, running.enqueued_at, running.started_at) == ("m", "fleet@a", 1000.25, 1001.5)
    assert (ended.model, ended.worker, ended.enqueued_at) == ("m", RESULT.worker, None)


@pytest.mark.parametrize("record", [{}, RECORD | {b"state": b"succeeded"}])
def test_the_status_of_a_job_whose_result_is_gone_is_expired(record: Mapping[bytes, bytes]) -> None:
    """Not queued, not running: nothing will ever come."""
    with pytest.raises(ResultExpired):
        status_of("j", record, None)


def test_an_outcome_unwraps_to_its_result_or_raises_its_failure() -> None:
    """So that a caller who wants exceptions has them."""
    failed = JobOutcome(1, "k", failure=Failure(code=FailureCode.EXPIRED, message="too late"))

    assert JobOutcome(0, "j", result=RESULT).unwrap() is RESULT
    with pytest.raises(InferenceFailed, match="expired: too late") as caught:
        failed.unwrap()
    assert caught.value.code is FailureCode.EXPIRED
