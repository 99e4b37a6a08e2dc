"""What Celery promises of a task, kept by jobs on the engine: revoke, limits, ETA, expiry, retries, inspection."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from tests.running import RunningFleet
from tests.waiting import eventually

TIMEOUT_SECONDS = 30
# Long enough to be looked at while it runs: the tiny model takes two thousand steps of 64 sequences in ten seconds.
LONG: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True, "n": 64}


@pytest.fixture
def app(fleet: RunningFleet) -> Iterator[Celery]:
    """A stock sender that knows no more than the task's name and queue."""
    with fleet.celery() as app:
        yield app


def send(app: Celery, fleet: RunningFleet, sampling: dict[str, Any], **options: Any) -> AsyncResult:  # noqa: ANN401
    """Send one job as any Celery app can."""
    request = {"model": fleet.served, "prompt": f"job {time.monotonic_ns()}", "sampling": sampling}
    if fleet.served == "sim" and sampling is LONG:
        request["metadata"] = {"simulate": "slow:20"}
    return app.send_task("fleet.generate", args=[request], queue=f"fleet.{fleet.served}", **options)


def active(app: Celery) -> dict[str, Any]:
    """Jobs that run now, by id, as ``celery inspect active`` shows them."""
    replies = app.control.inspect(timeout=30, limit=1).active() or {}
    return {job["id"]: job for jobs in replies.values() for job in jobs}


def test_revoking_a_running_job_frees_the_engine(fleet: RunningFleet, app: Celery) -> None:
    """``revoke(terminate=True)`` aborts inside the engine: state REVOKED, no job active, the next one is served."""
    sent = send(app, fleet, LONG)
    eventually(lambda: sent.id in active(app), what="the job is active")
    app.control.revoke(sent.id, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        sent.get(timeout=TIMEOUT_SECONDS)
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")
    assert fleet.metric("fleet_requests_total", status="cancelled") >= 1
    assert send(app, fleet, {"max_tokens": 2}).get(timeout=TIMEOUT_SECONDS)["usage"]["completion_tokens"] <= 2
    # vLLM tells its gauges with a step, so only now; the simulated engine has none of them.
    eventually(lambda: fleet.metric("vllm:num_requests_running") == 0, what="no running sequence")


def test_a_job_revoked_before_it_starts_never_reaches_the_engine(fleet: RunningFleet, app: Celery) -> None:
    """Revoked while it waits for its ETA."""
    sent = send(app, fleet, {"max_tokens": 2}, countdown=2)
    app.control.revoke(sent.id)
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=TIMEOUT_SECONDS)


def test_the_soft_time_limit_stops_the_job_with_its_own_error(fleet: RunningFleet, app: Celery) -> None:
    """The job fails with SoftTimeLimitExceeded and its slot is free."""
    with pytest.raises(SoftTimeLimitExceeded):
        send(app, fleet, LONG, soft_time_limit=0.3).get(timeout=TIMEOUT_SECONDS)
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")


def test_the_hard_time_limit_stops_the_job(fleet: RunningFleet, app: Celery) -> None:
    """The job fails with TimeLimitExceeded and its slot is free."""
    with pytest.raises(TimeLimitExceeded):
        send(app, fleet, LONG, time_limit=0.3).get(timeout=TIMEOUT_SECONDS)
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")


def test_an_expired_job_is_not_started(fleet: RunningFleet, app: Celery) -> None:
    """Celery's ``expires`` in the past."""
    sent = send(app, fleet, {"max_tokens": 2}, expires=datetime.now(UTC) - timedelta(seconds=5))
    with pytest.raises(TaskRevokedError, match="expired"):
        sent.get(timeout=TIMEOUT_SECONDS)


def test_a_deadline_stops_a_running_job(fleet: RunningFleet, app: Celery) -> None:
    """Past its deadline the answer is worth nothing, so the engine is freed."""
    request = {
        "model": fleet.served,
        "prompt": "too slow",
        "sampling": LONG,
        "deadline": (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat(),
        "metadata": {"simulate": "slow:20"},
    }
    sent = app.send_task("fleet.generate", args=[request], queue=f"fleet.{fleet.served}")
    with pytest.raises(Exception, match="deadline") as failed:
        sent.get(timeout=TIMEOUT_SECONDS)
    assert failed.value.code == "expired"  # type: ignore[attr-defined]
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")


def test_an_eta_is_waited_for(fleet: RunningFleet, app: Celery) -> None:
    """The job starts no earlier than it was told."""
    started_at = time.monotonic()
    send(app, fleet, {"max_tokens": 2}, countdown=1.5).get(timeout=TIMEOUT_SECONDS)
    assert time.monotonic() - started_at >= 1.4


def test_inspect_shows_active_jobs_and_pool_statistics(fleet: RunningFleet, app: Celery) -> None:
    """What ``celery inspect`` and Flower's worker page are made of."""
    sent = send(app, fleet, LONG)
    seen: dict[str, Any] = {}
    eventually(lambda: seen.update(active(app)) or sent.id in seen, what="the job is active")
    job = seen[sent.id]
    assert job["name"] == "fleet.generate"
    assert job["time_start"] is not None
    stats = next(iter(app.control.inspect(timeout=30, limit=1).stats().values()))
    assert stats["pool"]["running"] >= 1
    assert stats["pool"]["max-concurrency"] >= 64
    app.control.revoke(sent.id, terminate=True)
    eventually(lambda: fleet.metric("fleet_active_jobs") == 0, what="no active job")


def test_an_overloaded_engine_is_tried_again(simulated_fleet: RunningFleet) -> None:
    """Celery's autoretry: the first attempt finds no room, the second one answers and says that it is the second."""
    request = {"model": "sim", "prompt": f"busy {time.monotonic_ns()}", "metadata": {"simulate": "overloaded_once"}}
    with simulated_fleet.celery() as app:
        sent = app.send_task("fleet.generate", args=[request], queue="fleet.sim")
        assert sent.get(timeout=TIMEOUT_SECONDS)["attempt"] == 2
