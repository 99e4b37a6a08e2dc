"""What must hold after every run, whatever was killed: pure functions from the evidence to its violations."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.chaos.evidence import Evidence

Violations = list[str]


def every_job_is_answered(evidence: Evidence) -> Violations:
    """Each submitted job has a terminal result; one that has none is lost, or waits in a place nobody looks at."""
    lost, waiting = [], []
    for submitted in {each.job_id: each for each in evidence.submissions}.values():
        if submitted.job_id in evidence.stored or evidence.may_be_lost(submitted.enqueued_at):
            continue
        sentence = f"job {submitted.job_id} ({submitted.key}) has no result"
        if submitted.job_id in evidence.still_queued:
            waiting.append(f"{sentence}; its message is still in Redis")
        else:
            lost.append(f"{sentence}; its message is nowhere")
    return lost + waiting


def no_job_is_answered_twice(evidence: Evidence) -> Violations:
    """Only one terminal result of a job was ever published or stored."""
    return [
        f"job {job_id} had {len(results)} terminal results: {', '.join(each.status for each in results)}"
        for job_id, results in evidence.seen.items()
        if len(results) > 1 and not evidence.may_be_lost(results[0].seen_at)
    ]


def no_result_changes(evidence: Evidence) -> Violations:
    """What is stored at the end is what was announced first."""
    return [
        f"job {job_id} was {results[0].status}, and is stored as another {evidence.stored[job_id].status}"
        for job_id, results in evidence.seen.items()
        if job_id in evidence.stored
        and evidence.stored[job_id].digest != results[0].digest
        and not evidence.may_be_lost(results[0].seen_at)
    ]


def every_answer_is_its_jobs_own(evidence: Evidence) -> Violations:
    """The answer under a job's id is to that job's request, and whole."""
    keys = {submitted.job_id: submitted.key for submitted in evidence.submissions}
    wrong = []
    for job_id, result in evidence.stored.items():
        if result.status != "SUCCESS" or job_id not in keys:
            continue
        wanted = (job_id, keys[job_id], evidence.tokens_by_key[keys[job_id]])
        if (result.job_id, result.key, result.completion_tokens) != wanted:
            wrong.append(f"job {job_id} should be answered as {wanted}, not as {result}")
    return wrong


def every_job_succeeds(evidence: Evidence) -> Violations:
    """No fault of these scenarios is the job's own fault, so none is a reason to fail it."""
    return [
        f"job {job_id} ended as {result.status}"
        for job_id, result in evidence.stored.items()
        if result.status != "SUCCESS" and job_id in evidence.job_ids
    ]


def one_key_is_one_job(evidence: Evidence) -> Violations:
    """An idempotency key names the same job however often its producer was killed and tried again."""
    ids: dict[str, set[str]] = defaultdict(set)
    for submitted in evidence.submissions:
        if not evidence.may_be_lost(submitted.enqueued_at):
            ids[submitted.key].add(submitted.job_id)
    return [f"key {key} named {len(jobs)} jobs: {sorted(jobs)}" for key, jobs in ids.items() if len(jobs) > 1]


def nothing_is_answered_unasked(evidence: Evidence) -> Violations:
    """Every result belongs to a submission: a job that a killed producer half made would show here."""
    return [f"result of job {job_id}, which nobody submitted" for job_id in evidence.seen.keys() - evidence.job_ids]


def nothing_is_left_over(evidence: Evidence) -> Violations:
    """Lanes, leases and every side key are empty when all jobs have ended."""
    return [f"{name} has {count} entries left" for name, count in evidence.residue.items() if count]


def no_attempt_is_counted_for_a_hand_back(evidence: Evidence) -> Violations:
    """Where no fault costs an attempt, every answer is of the first, however often a job was handed back."""
    return [
        f"job {job_id} was answered by attempt {result.attempt}"
        for job_id, result in evidence.stored.items()
        if evidence.max_attempt is not None and result.attempt > evidence.max_attempt
    ]


INVARIANTS: Final[Sequence[Callable[[Evidence], Violations]]] = (
    every_job_is_answered,
    no_job_is_answered_twice,
    no_result_changes,
    every_answer_is_its_jobs_own,
    every_job_succeeds,
    one_key_is_one_job,
    nothing_is_answered_unasked,
    nothing_is_left_over,
    no_attempt_is_counted_for_a_hand_back,
)


def violations_of(evidence: Evidence) -> Mapping[str, Violations]:
    """Every invariant by name, with its violations."""
    return {invariant.__name__: invariant(evidence) for invariant in INVARIANTS}
