"""Drains, wake-ups, waits and limits of the runner, on a real loop with an engine that answers when the test says."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from producer.contract import GenerationResult
from tests.runner_bench import NEVER_SECONDS, SOON_SECONDS, running, running_within
from tests.waiting import eventually
from workers.engine.entrance import NO_PATIENCE, Patience
from workers.pool.grouping import Refill
from workers.pool.job import TimeLimits
from workers.pool.runner import BatchLimits


def test_a_drain_takes_at_most_max_jobs() -> None:
    """A burst of ten enters as four, four and two, in order of arrival."""
    with running(max_jobs=4) as bench:
        with bench.stopped_loop():
            for number in range(10):
                bench.runner.offer(bench.job(str(number)))
        eventually(lambda: len(bench.engine.arrived) == 10, what="all jobs are in the engine")
        assert bench.observer.sizes == [4, 4, 2]
        assert bench.engine.arrived == [str(number) for number in range(10)]


def test_a_burst_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs come before the loop looks; the next burst wakes it again."""
    with running() as bench:
        wake_ups: list[Callable[..., object]] = []
        wake = bench.host.loop.call_soon_threadsafe

        def counted(callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.Handle:  # noqa: ANN401 - asyncio's
            wake_ups.append(callback)
            return wake(callback, *args, **options)

        for burst in (1, 2):
            with bench.stopped_loop():
                monkeypatch.setattr(bench.host.loop, "call_soon_threadsafe", counted)
                for number in range(10):
                    bench.runner.offer(bench.job(f"{burst}-{number}"))
                monkeypatch.undo()
            assert len(wake_ups) == burst
            eventually(lambda: len(bench.engine.arrived) == 10 * burst, what="the burst is in the engine")  # noqa: B023 - called at once


def test_an_idle_engine_never_waits_for_company() -> None:
    """The first job goes in at once, whatever the wait."""
    with running(max_wait_seconds=NEVER_SECONDS) as bench:
        bench.runner.offer(bench.job("first"))
        eventually(lambda: bench.engine.arrived == ["first"], what="the job is in the engine")


def test_a_busy_engine_waits_for_company() -> None:
    """Jobs that come while others run enter together when the wait is over, not one by one."""
    with running(max_jobs=10, max_wait_seconds=0.3) as bench:
        bench.runner.offer(bench.job("first"))
        eventually(lambda: bench.engine.arrived == ["first"], what="the engine has work")
        for number in range(3):
            bench.runner.offer(bench.job(str(number)))
            bench.on_loop(lambda: None)  # the loop turns in between: each job alone would be a drain
        eventually(lambda: len(bench.engine.arrived) == 4, what="all are in the engine")
        assert bench.observer.sizes == [1, 3]


def test_a_full_batch_does_not_wait() -> None:
    """There is no company left to wait for."""
    with running(max_jobs=2, max_wait_seconds=NEVER_SECONDS) as bench:
        bench.runner.offer(bench.job("first"))
        eventually(lambda: bench.engine.arrived == ["first"], what="the engine has work")
        with bench.stopped_loop():
            for name in ("a", "b"):
                bench.runner.offer(bench.job(name))
        eventually(lambda: bench.engine.arrived == ["first", "a", "b"], what="the full batch is in the engine")


def test_a_job_that_is_given_up_before_it_starts_never_reaches_the_engine() -> None:
    """Neither is it counted in the drain."""
    with running() as bench:
        with bench.stopped_loop():
            unwanted, wanted = bench.job("unwanted"), bench.job("wanted")
            bench.runner.offer(unwanted)
            bench.runner.offer(wanted)
            unwanted.abort(unwanted, "cancelled")
        eventually(lambda: bench.engine.arrived == ["wanted"], what="the other one is in the engine")
        assert bench.observer.sizes == [1]
        assert unwanted.task is None


def test_an_answer_is_handed_over_for_recording() -> None:
    """With the job that it belongs to."""
    with running() as bench:
        bench.release()
        job = bench.job("j")
        bench.runner.offer(job)
        eventually(lambda: bench.finished, what="the answer")
        [(answered, result)] = bench.finished
        assert answered is job
        assert isinstance(result, GenerationResult)
        assert result.text == "word"


def test_a_cancelled_job_frees_its_slot_and_has_no_outcome() -> None:
    """The engine stops working for it; what else runs goes on."""
    with running() as bench:
        cancelled, other = bench.job("cancelled"), bench.job("other")
        bench.runner.offer(cancelled)
        bench.runner.offer(other)
        eventually(lambda: len(bench.engine.arrived) == 2, what="both run")
        cancelled.terminate()
        eventually(lambda: bench.engine.freed == ["cancelled"], what="its slot is free")
        bench.release()
        eventually(lambda: bench.finished, what="the other's answer")
        assert [job for job, _ in bench.finished] == [other]


def test_past_its_soft_limit_a_job_fails_with_that() -> None:
    """Celery hears of the limit first, then the job has an outcome like any other; its slot is free."""
    with running() as bench:
        bench.runner.offer(bench.job("slow", TimeLimits(SOON_SECONDS, NEVER_SECONDS)))
        eventually(lambda: len(bench.finished) == 2, what="the limit and the outcome")
        (_, report), (_, outcome) = bench.finished
        assert callable(report)
        report()
        assert bench.timeouts == [(True, SOON_SECONDS)]
        assert isinstance(outcome, SoftTimeLimitExceeded)
        assert bench.engine.freed == ["slow"]
        assert bench.aborted == []


def test_past_its_hard_limit_a_job_is_given_up_and_celery_records_it() -> None:
    """No outcome of ours: Celery's own handler fails the job."""
    with running() as bench:
        job = bench.job("slow", TimeLimits(None, SOON_SECONDS))
        bench.runner.offer(job)
        eventually(lambda: bench.engine.freed == ["slow"], what="its slot is free")
        assert bench.aborted == [(job, "time_limit_exceeded")]
        [(_, report)] = bench.finished
        assert callable(report)
        report()
        assert bench.timeouts == [(False, SOON_SECONDS)]


def test_a_job_within_its_limits_leaves_no_timer_behind() -> None:
    """What is answered cannot time out afterwards."""
    with running() as bench:
        bench.release()
        bench.runner.offer(bench.job("quick", TimeLimits(NEVER_SECONDS, NEVER_SECONDS)))
        eventually(lambda: bench.outcomes, what="the answer")
        # The loop keeps cancelled timers in its heap, marked.
        timers: list[asyncio.TimerHandle] = getattr(bench.host.loop, "_scheduled")  # noqa: B009 - not in its type
        own = [timer for timer in timers if "limit_reached" in repr(timer)]
        assert all(timer.cancelled() for timer in own)


def test_a_job_whose_engine_died_has_no_outcome_and_the_death_is_reported() -> None:
    """Its message stays unacknowledged; another worker does it."""
    with running() as bench:
        deaths: list[str] = []
        bench.host.on_death(deaths.append)
        for name in ("a", "b"):
            bench.runner.offer(bench.job(name))
        eventually(lambda: len(bench.engine.arrived) == 2, what="both run")
        bench.engine.is_dead = True
        bench.release()
        eventually(lambda: len(bench.engine.freed) == 2, what="both are over")
        bench.on_loop(lambda: None)
        assert deaths == ["its process is gone"]
        assert bench.finished == []


def test_no_more_jobs_run_than_the_engine_has_seats() -> None:
    """The rest waits in the worker, and takes a seat as soon as one is free."""
    with running(max_jobs=10, seats=2) as bench:
        jobs = [bench.job(str(number)) for number in range(4)]
        for job in jobs:
            bench.runner.offer(job)
        eventually(lambda: len(bench.engine.arrived) == 2, what="two run")
        bench.on_loop(lambda: None)
        assert bench.engine.arrived == ["0", "1"]
        jobs[0].abort(jobs[0], "cancelled")
        eventually(lambda: bench.engine.arrived == ["0", "1", "2"], what="the third has the seat")
        bench.release()
        eventually(lambda: len(bench.outcomes) == 3, what="the others are answered")


def test_reserved_seats_are_for_urgent_jobs_alone() -> None:
    """An urgent job does not wait for others to end, though it came last."""
    with running(max_jobs=10, seats=3, reserved_seats=1) as bench:
        for number in range(5):
            bench.runner.offer(bench.job(f"batch {number}", queue_priority=6))
        eventually(lambda: len(bench.engine.arrived) == 2, what="all common seats are taken")
        bench.runner.offer(bench.job("urgent", queue_priority=0))
        eventually(lambda: "urgent" in bench.engine.arrived, what="it runs")
        assert bench.engine.arrived == ["batch 0", "batch 1", "urgent"]
        bench.release()
        eventually(lambda: len(bench.outcomes) == 6, what="all are answered")


def test_urgent_jobs_take_a_free_seat_before_others_that_wait() -> None:
    """Whoever came first."""
    with running(max_jobs=10, seats=1) as bench:
        first = bench.job("first")
        bench.runner.offer(first)
        eventually(lambda: bench.engine.arrived == ["first"], what="it runs")
        bench.runner.offer(bench.job("batch", queue_priority=6))
        bench.runner.offer(bench.job("urgent", queue_priority=0))
        bench.on_loop(lambda: None)
        first.abort(first, "cancelled")
        eventually(lambda: bench.engine.arrived == ["first", "urgent"], what="the urgent one runs")
        bench.release()
        eventually(lambda: len(bench.outcomes) == 2, what="both are answered")


def test_jobs_are_patient_in_a_full_engine_for_which_others_wait() -> None:
    """Those that take the last group's seats may wait for each other; the others begin at once."""
    limits = BatchLimits(10, 0.0, seats=7, reserved_seats=1, refill=Refill(2, 0.2))
    with running_within(limits) as bench:
        with bench.stopped_loop():
            for number in range(7):
                bench.runner.offer(bench.job(f"batch {number}"))
        eventually(lambda: len(bench.engine.arrived) == 6, what="all common seats are taken")
        assert [patience.seconds for patience in bench.engine.patience] == [0, 0, 0, 0, 0.2, 0.2]
        bench.release()
        eventually(lambda: len(bench.outcomes) == 7, what="all are answered")
        assert bench.engine.patience[-1] == Patience(0.2)  # it had to wait for its seat


def test_after_an_urgent_job_nobody_waits_for_others() -> None:
    """The next one like it would have to wait for a group's step."""
    limits = BatchLimits(10, 0.0, seats=4, reserved_seats=1, refill=Refill(2, NEVER_SECONDS))
    with running_within(limits) as bench:
        with bench.stopped_loop():
            bench.runner.offer(bench.job("urgent", queue_priority=0))
            for number in range(4):
                bench.runner.offer(bench.job(f"batch {number}"))
        eventually(lambda: len(bench.engine.arrived) == 3, what="all common seats are taken")
        assert set(bench.engine.patience) == {NO_PATIENCE}
        bench.release()
        eventually(lambda: len(bench.outcomes) == 5, what="all are answered")


def test_jobs_that_find_a_seat_when_they_come_do_not_wait_for_others() -> None:
    """However few seats are left."""
    limits = BatchLimits(10, 0.0, seats=4, refill=Refill(2, NEVER_SECONDS))
    with running_within(limits) as bench:
        for number in range(4):
            bench.runner.offer(bench.job(str(number)))
        eventually(lambda: len(bench.engine.arrived) == 4, what="every seat is taken")
        assert set(bench.engine.patience) == {NO_PATIENCE}
        bench.release()
        eventually(lambda: len(bench.outcomes) == 4, what="all are answered")
