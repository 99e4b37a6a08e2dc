"""The checks of the fault suite can fail: each finds the story that it is for, and only that one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.chaos.evidence import Evidence, Submitted, Terminal, Window
from tests.chaos.invariants import violations_of

KEY = "7-1"
JOB = "job-1"
SUBMITTED_AT = 1000.0
ANSWERED_AT = 1001.0
GOOD = Terminal("good", "SUCCESS", ANSWERED_AT, job_id=JOB, key=KEY, completion_tokens=9, attempt=1)
OTHER = replace(GOOD, digest="other", seen_at=1002.0)
LOST_SECOND = Window(999.5, 1001.5)


def evidence(**changes: object) -> Evidence:
    """One job that was submitted, answered and tidied up, but for these changes."""
    clean: Mapping[str, Any] = {
        "submissions": [Submitted(KEY, JOB, SUBMITTED_AT)],
        "tokens_by_key": {KEY: 9},
        "seen": {JOB: [GOOD]},
        "stored": {JOB: GOOD},
        "residue": {"fleet:leases:sim": 0},
    }
    return Evidence(**{**clean, **changes})


def violated(**changes: object) -> set[str]:
    """Names of the invariants that do not hold then."""
    return {name for name, found in violations_of(evidence(**changes)).items() if found}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, set()),
        ({"seen": {}, "stored": {}}, {"every_job_is_answered"}),
        ({"seen": {JOB: [GOOD, OTHER]}}, {"no_job_is_answered_twice"}),
        ({"seen": {JOB: [GOOD, OTHER]}, "stored": {JOB: OTHER}}, {"no_job_is_answered_twice", "no_result_changes"}),
        ({"stored": {JOB: OTHER}}, {"no_result_changes"}),
        ({"stored": {JOB: replace(GOOD, key="7-2")}}, {"every_answer_is_its_jobs_own"}),
        ({"stored": {JOB: replace(GOOD, job_id="job-2")}}, {"every_answer_is_its_jobs_own"}),
        ({"stored": {JOB: replace(GOOD, completion_tokens=8)}}, {"every_answer_is_its_jobs_own"}),
        ({"stored": {JOB: replace(GOOD, status="FAILURE")}}, {"every_job_succeeds"}),
        ({"seen": {JOB: [GOOD], "job-2": [OTHER]}}, {"nothing_is_answered_unasked"}),
        ({"residue": {"fleet:leases:sim": 1}}, {"nothing_is_left_over"}),
        ({"stored": {JOB: replace(GOOD, attempt=2)}, "max_attempt": 1}, {"no_attempt_is_counted_for_a_hand_back"}),
        ({"stored": {JOB: replace(GOOD, attempt=2)}}, set()),
    ],
)
def test_each_story_is_found_by_the_invariant_that_is_for_it(changes: dict[str, Any], names: set[str]) -> None:
    """One job, and one thing gone wrong with it."""
    assert violated(**changes) == names


def test_a_lost_job_is_told_apart_from_one_that_waits_where_nobody_looks() -> None:
    """Stock Celery has both: popped and never registered, or registered until the visibility timeout."""
    [lost] = violations_of(evidence(seen={}, stored={}))["every_job_is_answered"]
    [waiting] = violations_of(evidence(seen={}, stored={}, still_queued=frozenset({JOB})))["every_job_is_answered"]
    assert "its message is nowhere" in lost
    assert "its message is still in Redis" in waiting


def test_a_key_that_names_two_jobs_is_found() -> None:
    """A producer that was killed and tried again must get the job that it had."""
    again = Submitted(KEY, "job-2", SUBMITTED_AT)
    both = {JOB: GOOD, "job-2": replace(GOOD, job_id="job-2")}
    found = violated(
        submissions=[Submitted(KEY, JOB, SUBMITTED_AT), again],
        stored=both,
        seen={job_id: [result] for job_id, result in both.items()},
    )
    assert found == {"one_key_is_one_job"}


@pytest.mark.parametrize(
    "changes", [{"seen": {}, "stored": {}}, {"seen": {JOB: [GOOD, OTHER]}, "stored": {JOB: OTHER}}]
)
def test_what_a_server_said_that_it_may_lose_is_no_violation(changes: dict[str, Any]) -> None:
    """With ``everysec`` a machine that fails may lose its last second: jobs submitted and results stored in it."""
    assert violated(loss_windows=[LOST_SECOND], **changes) == set()


@pytest.mark.parametrize("changes", [{"seen": {}, "stored": {}}, {"seen": {JOB: [GOOD, OTHER]}}])
def test_what_was_written_before_is_not_excused(changes: dict[str, Any]) -> None:
    """The stated loss is bounded."""
    assert violated(loss_windows=[Window(1001.5, 1003.0)], **changes)


def answer_of_celery(status: str, result: object) -> bytes:
    """What Celery stores."""
    return orjson.dumps({"status": status, "result": result, "task_id": JOB})


@pytest.mark.parametrize("status", ["STARTED", "RETRY", "PENDING"])
def test_a_state_that_is_not_the_end_is_no_result(status: str) -> None:
    """Only SUCCESS, FAILURE and REVOKED end a job."""
    assert Terminal.read(answer_of_celery(status, {}), 0.0) is None


@pytest.mark.parametrize("read", [lambda: ("SUCCESS", "an answer of another form"), lambda: ("FAILURE", {"x": 1})])
def test_a_result_that_is_no_answer_is_still_an_end(read: Callable[[], Sequence[Any]]) -> None:
    """It ends the job, as nobody's answer."""
    status, result = read()
    terminal = Terminal.read(answer_of_celery(status, result), 5.0)
    assert terminal is not None
    assert (terminal.status, terminal.key, terminal.seen_at) == (status, "", 5.0)
