"""The fault suite's instruments measure and break what they say: ledger, jobs, schedule, lease view, proxy, clock."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import redis

from producer import keys
from tests.chaos.evidence import Submitted
from tests.chaos.jobs import JobShape, job_of, key_of, number_of
from tests.chaos.lease_view import Lease, LeaseView, RedeliveryClock, Waits
from tests.chaos.proxy import FaultyProxy
from tests.chaos.run import schedule
from tests.chaos.scenarios import SCENARIOS, with_kills
from tests.chaos.submitter import read_ledger
from tests.chaos.surroundings import NotHere, clock_environment
from tests.waiting import eventually
from workers.embedded import EmbeddedServer
from workers.transport.lease_store import LeasePolicy, LeaseStore, Release

MODEL = "sim"
DELAY_SECONDS = 0.3


def message_of(job_id: str) -> str:
    """As much of a message as the view reads."""
    return f'{{"body": "", "headers": {{"id": "{job_id}"}}, "properties": {{}}}}'


def test_a_seed_decides_on_the_jobs_and_on_the_order_of_faults() -> None:
    """So that a killed submitter's successor, and the checker, make the same jobs; and a run can be repeated."""
    shape = JobShape(7, prompt_bytes=100)
    assert job_of(shape, 3) == job_of(shape, 3) != job_of(shape, 4)
    assert len(job_of(shape, 3).prompt) == 100
    assert number_of(key_of(shape, 12)) == 12
    assert schedule(SCENARIOS["mixed"], Random(1)) == schedule(SCENARIOS["mixed"], Random(1))  # noqa: S311 - no secret
    assert with_kills(SCENARIOS["worker_sigkill"], 1000).faults == {"worker_sigkill": 1000}


def test_the_line_that_a_killed_submitter_did_not_finish_is_no_submission(tmp_path: Path) -> None:
    """Its job is submitted again under the same key."""
    ledger = tmp_path / "ledger"
    assert read_ledger(ledger) == []
    ledger.write_text('{"key": "7-0", "job_id": "a", "enqueued_at": 1.5, "duplicate": false}\n{"key": "7-1", "jo')
    assert read_ledger(ledger) == [Submitted("7-0", "a", 1.5)]


def test_the_view_reads_the_leases_of_the_real_scripts(redis_url: str) -> None:
    """Who holds which job since when; the entry's form is the transport's own."""
    with redis.Redis.from_url(redis_url) as client:
        store = LeaseStore(client, MODEL, LeasePolicy(), consumer="c1.", worker="sim-1@host")
        client.lpush(keys.queue(MODEL), message_of("a"))
        claim = store.claim(8, 0)
        [lease] = LeaseView(client, MODEL).current()
        assert lease == Lease(claim.messages[0].tag, "a", "sim-1@host", lease.claimed_at)
        assert lease.claimed_at == pytest.approx(claim.server_seconds, abs=1e-5)


def test_the_time_from_a_fault_to_the_next_claim_is_measured(redis_url: str) -> None:
    """By the server's clock; a job that is not claimed again is counted as unseen."""
    with redis.Redis.from_url(redis_url) as client:
        store = LeaseStore(client, MODEL, LeasePolicy(), consumer="c1.", worker="sim-1@host")
        client.lpush(keys.queue(MODEL), message_of("a"), message_of("b"))
        view = LeaseView(client, MODEL)
        first = store.claim(8, 0)
        clock = RedeliveryClock(view)
        clock.start()
        try:
            clock.watch("worker_sigkill", view.current(), first.server_seconds - 2.0)
            store.release([first.messages[0].tag], Release.HAND_BACK)
            second = store.claim(8, 1)
            eventually(lambda: clock.waits()["worker_sigkill"].seconds, what="the next claim is seen")
        finally:
            clock.stop()
        [seconds] = clock.waits()["worker_sigkill"].seconds
        assert seconds == pytest.approx(second.server_seconds - first.server_seconds + 2.0, abs=1e-3)
        assert clock.waits()["worker_sigkill"].unseen == 1


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank, not a guess between two."""
    waits = Waits(tuple(float(number) for number in range(1, 101)), unseen=2)
    assert waits.summary() == {"jobs": 100, "unseen": 2, "p50": 50.0, "p99": 99.0, "max": 100.0}
    assert Waits().summary() == {"jobs": 0, "unseen": 0}


def test_a_proxy_passes_on_delays_cuts_and_mends(redis_server: EmbeddedServer) -> None:
    """What a client sees of it is what a network does."""
    proxy = FaultyProxy(redis_server.port).start()
    try:
        with redis.Redis(port=proxy.port, socket_timeout=5.0) as client:
            assert client.ping()
            proxy.delay(DELAY_SECONDS)
            began_at = time.monotonic()
            assert client.ping()
            assert time.monotonic() - began_at >= 2 * DELAY_SECONDS
            proxy.cut()
            with pytest.raises(redis.exceptions.ConnectionError):
                client.ping()
            proxy.mend()
            assert client.ping()
    finally:
        proxy.close()


def test_a_wrong_clock_is_wrong_by_what_was_asked_and_waits_are_right(tmp_path: Path) -> None:
    """The wall clock of Python and of its datetime; a sleep takes as long as ever."""
    try:
        environ = clock_environment(-3600, tmp_path)
    except NotHere as error:
        pytest.skip(str(error))
    program = (
        "import datetime, time; began = time.monotonic(); time.sleep(0.1); waited = time.monotonic() - began; "
        "print(time.time(), datetime.datetime.now(datetime.UTC).timestamp(), waited)"
    )
    printed = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True)
    wall, calendar, waited = map(float, printed.stdout.split())
    assert wall == pytest.approx(time.time() - 3600, abs=60)
    assert calendar == pytest.approx(wall, abs=1)
    assert waited >= 0.1


def test_a_clock_that_is_right_needs_nothing(tmp_path: Path) -> None:
    """No library, no variables."""
    assert clock_environment(0, tmp_path) == {}
