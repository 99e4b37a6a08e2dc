"""The keeper of leases: what it renews, what it takes over from the dead, and what it notices."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deliveries import SUBMISSION
from tests.keeper_bench import LEASE_SECONDS, TURN_SECONDS, Bench, Clock, bench_at
from tests.leasing import end
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer
from workers.transport import keeper as keeper_module
from workers.transport import ledger as ledger_module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The only time that passes for keeper and ledger."""
    clock = Clock()
    for module in (keeper_module, ledger_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(redis_url: str, clock: Clock) -> Iterator[Bench]:
    """On the session's server; nothing is held."""
    with bench_at(redis_url, clock) as bench:
        yield bench


# Renewal.


def test_what_the_pool_holds_is_renewed_three_times_a_lease(bench: Bench) -> None:
    """At once, and then every third of a lease, for as long as it runs."""
    [held] = bench.hold_in_pool("a")
    keeper = bench.keeper()
    renewed = []
    for _ in range(9):
        bench.age(held)
        bench.turn(keeper)
        renewed.append(bench.is_renewed(held))
    assert renewed == [True, False] * 4 + [True]


def test_a_message_on_its_way_to_the_pool_is_renewed(bench: Bench) -> None:
    """Celery may take a moment."""
    [held] = bench.hold("a")
    bench.age(held)
    bench.turn(bench.keeper())
    assert bench.is_renewed(held)


def test_while_the_engine_hangs_nothing_is_renewed(bench: Bench) -> None:
    """Its leases are left to end; what it holds stays on the ledger, should it come to itself before that."""
    [held] = bench.hold_in_pool("a")
    keeper = bench.keeper()
    bench.engine_is_well.clear()
    bench.age(held)
    bench.turn(keeper, times=5)
    assert not bench.is_renewed(held)
    bench.engine_is_well.set()
    bench.turn(keeper)
    assert bench.is_renewed(held)
    assert bench.lost == []


def test_a_lease_that_is_lost_is_told_once(bench: Bench) -> None:
    """Its slot is free; what else is held is not touched."""
    lost, kept = bench.hold_in_pool("lost", "kept")
    keeper = bench.keeper()
    bench.queue.expire(lost.tag)
    bench.queue.store("two").reap()
    bench.turn(keeper, times=4)
    assert bench.lost == [lost]
    assert bench.ledger.entries() == [kept]


def test_a_job_that_finished_while_leases_were_renewed_is_not_lost(bench: Bench) -> None:
    """Its lease is gone because its result is there."""
    finished, running = bench.hold_in_pool("finished", "running")
    bench.racing.meanwhile = lambda: bench.leases.end([end(finished.tag, "finished")])
    bench.turn(bench.keeper())
    assert bench.lost == []
    assert bench.ledger.entries() == [running]
    assert bench.is_renewed(running)


def test_a_job_whose_end_is_on_the_way_is_not_lost(bench: Bench) -> None:
    """Its lease ended on the server, whose reply is not here yet: who sent the end hears what became of it."""
    [ending] = bench.hold_in_pool("ending")
    bench.ledger.ending(ending.tag)
    bench.store.finish([end(ending.tag, "ending")])
    bench.turn(bench.keeper())
    assert bench.lost == []
    assert bench.ledger.entries() == [ending]


def test_what_celery_never_brought_to_the_pool_goes_back_and_is_counted(bench: Bench) -> None:
    """After one lease: somebody else may do something with it, but not for ever. What runs meanwhile is kept."""
    [stranded] = bench.hold("stranded")
    [running] = bench.hold_in_pool("running")
    keeper = bench.keeper()
    bench.turn(keeper, times=int(LEASE_SECONDS / TURN_SECONDS))
    assert bench.ledger.entries() == [stranded, running]
    bench.turn(keeper, times=2)
    assert bench.ledger.entries() == [running]
    assert bench.lost == []
    [again] = bench.queue.store("two").claim(1, held=0).messages
    assert (again.raw, again.delivery) == (stranded.message.raw, 2)
    assert [attempt["event"] for attempt in again.history] == ["it never reached the worker's pool"]


# Cancellations.


def test_a_cancellation_is_found_without_a_message(bench: Bench) -> None:
    """Whoever announced it may have been cut off, or we."""
    cancelled, _ = bench.hold_in_pool("cancelled", "other")
    bench.queue.client.hset(bench.queue.keys.cancels, "cancelled", SUBMISSION)
    bench.turn(bench.keeper())
    assert bench.cancelled == [cancelled]
    assert cancelled.is_cancelled


def test_a_cancellation_of_another_submission_is_none(bench: Bench) -> None:
    """Of the same id, or of a job that is elsewhere; a stock sender's job has no submission to cancel."""
    [held, stock] = bench.hold_in_pool("j", "stock")
    stock.submission_token = None
    for job_id in ("j", "stock", "elsewhere"):
        bench.queue.client.hset(bench.queue.keys.cancels, job_id, "of an earlier submission")
    bench.turn(bench.keeper())
    assert bench.cancelled == []
    assert not held.is_cancelled
    assert not stock.is_cancelled


def test_a_cancelled_job_on_its_way_to_the_pool_is_marked(bench: Bench) -> None:
    """The pool sees the mark and does not start it; there is nothing to stop yet."""
    [held] = bench.hold("a")
    bench.queue.client.hset(bench.queue.keys.cancels, "a", SUBMISSION)
    bench.turn(bench.keeper())
    assert held.is_cancelled
    assert bench.cancelled == []


# The dead.


def test_leases_of_the_dead_are_handed_back(bench: Bench) -> None:
    """And counted as deliveries; of the living nothing is taken."""
    bench.leave_dead("a")
    [held] = bench.hold_in_pool("b")
    bench.turn(bench.keeper(), times=10)
    assert bench.reaped == [1]
    assert bench.ledger.entries() == [held]
    [again] = bench.queue.store("two").claim(8, held=0).messages
    assert again.delivery == 2


def test_nothing_is_reaped_before_one_lease_has_passed(bench: Bench) -> None:
    """The server has just started, so nobody could renew until now: whoever lives does so within a lease."""
    bench.leave_dead("a")
    keeper = bench.keeper()
    bench.turn(keeper, times=int(LEASE_SECONDS / TURN_SECONDS))
    assert bench.reaped == []
    bench.turn(keeper)
    assert bench.reaped == [1]


def test_a_fresh_worker_on_a_server_that_was_up_reaps_at_once(bench: Bench) -> None:
    """It has seen no outage: in a storm of kills every worker is fresh, and somebody must reap."""
    bench.racing.uptime_seconds = LEASE_SECONDS
    bench.leave_dead("a")
    bench.turn(bench.keeper())
    assert bench.reaped == [1]


def test_a_standstill_counts_as_an_outage(bench: Bench) -> None:
    """This machine froze, or Redis answered late: the others are given a lease, ours are renewed at once."""
    [held] = bench.hold_in_pool("a")
    keeper = bench.keeper()
    bench.turn(keeper, times=10)
    bench.leave_dead("b")
    bench.age(held)
    bench.clock.now += LEASE_SECONDS / 2
    bench.turn(keeper)
    assert bench.is_renewed(held)
    bench.turn(keeper, times=int(LEASE_SECONDS / TURN_SECONDS) - 1)
    assert bench.reaped == []
    bench.turn(keeper)
    assert bench.reaped == [1]


# The thread.


@contextmanager
def running(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The keeper in its thread, which turns all the time; calling lets the clock go on and waits for whole turns."""
    monkeypatch.setattr(keeper_module, "TICK_SECONDS", 0.01)
    keeper = bench.keeper()

    def turn() -> None:
        # The second begins when the first is over.
        for seconds in (TURN_SECONDS, 0.001):
            bench.clock.now += seconds
            eventually(lambda: keeper._last_tick_at == bench.clock.now, what="a turn")

    keeper.start()
    try:
        yield turn
    finally:
        keeper.stop()
        assert "lease-keeper" not in {thread.name for thread in threading.enumerate()}


def test_after_an_outage_nothing_is_reaped_before_one_lease_has_passed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All leases have ended meanwhile; ours are renewed first, and the thread has outlived it."""
    with (
        EmbeddedServer(tmp_path, free_port(), append_fsync="always") as server,
        bench_at(server.url, clock) as bench,
    ):
        [held] = bench.hold_in_pool("ours")
        bench.leave_dead("theirs")
        with running(bench, monkeypatch) as turn:
            turn()
            bench.age(held)
            server.kill()
            clock.now += 2 * TURN_SECONDS
            eventually(lambda: "leases cannot be renewed" in caplog.text, what="the warning")
            clock.now += 10 * LEASE_SECONDS
            server.start()
            eventually(lambda: bench.is_renewed(held), what="the renewal")
            for _ in range(int(LEASE_SECONDS / TURN_SECONDS) - 1):
                turn()
            assert bench.reaped == []
            turn()
            turn()
            assert bench.reaped == [1]
            assert bench.lost == []


def test_a_listener_that_fails_does_not_end_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A keeper that ended in silence would let every lease of its worker end."""
    harmful, kept = bench.hold_in_pool("harmful", "kept")
    bench.queue.expire(harmful.tag)
    bench.queue.store("two").reap()
    with running(bench, monkeypatch) as turn:
        eventually(lambda: "a bug in the pool" in caplog.text, what="the log line")
        bench.age(kept)
        for _ in range(3):
            turn()
        assert bench.is_renewed(kept)
    assert bench.lost == [harmful]
