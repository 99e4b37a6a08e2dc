"""Each of these was somebody's bug, and stopped a queue or shared it badly: its story, and what is different here."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from producer import keys
from producer.contract import Priority
from tests.leasing import MODEL, LeaseQueue, end, raws, tags
from tests.waiting import eventually
from workers.transport.lease_store import FinishStatus, Release

ROOT: Final = Path(__file__).parents[2]
BACKLOG: Final = 3000
REAPER: Final = f"""
import sys, redis
from workers.transport.lease_store import LeasePolicy, LeaseStore
store = LeaseStore(redis.Redis.from_url(sys.argv[1]), {MODEL!r}, LeasePolicy(), consumer="doomed", worker="doomed@host")
while store.reap(limit=1):
    pass
"""


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def blocked_clients(queue: LeaseQueue) -> int:
    """Clients that wait at the server."""
    information: Any = queue.client.info("clients")
    return int(information["blocked_clients"])


def has_length(some: Sized, length: int) -> bool:
    """Whether there are so many."""
    return len(some) == length


@contextmanager
def waiting_workers(queue: LeaseQueue, redis_url: str, count: int) -> Iterator[list[int]]:
    """So many wait for the bell; the list has the number of each that woke, and they are woken at the end."""
    woken: list[int] = []

    def wait(number: int) -> None:
        with redis.Redis.from_url(redis_url, socket_timeout=None) as client:
            client.blpop([queue.keys.doorbell], timeout=0)
        woken.append(number)

    threads = [threading.Thread(target=wait, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    eventually(lambda: blocked_clients(queue) == count, what="all of them wait")
    try:
        yield woken
    finally:
        queue.client.lpush(queue.keys.doorbell, *["1"] * count)
        for thread in threads:
            thread.join()


def test_one_burst_wakes_one_worker_after_the_other(queue: LeaseQueue, redis_url: str) -> None:
    """All workers waking at once.

    Elsewhere: a notification that every idle worker hears, or a poll that all of them make in the same second, costs
    a call of each of them for every job. Here: one token wakes one worker, and what that one leaves behind rings for
    the next.
    """
    queue.push(b"a", b"b", b"c")
    with waiting_workers(queue, redis_url, 4) as woken:
        queue.client.lpush(queue.keys.doorbell, "1")
        for awake in (1, 2, 3):
            eventually(partial(has_length, woken, awake), what=f"number {awake} wakes")
            assert not queue.client.exists(queue.keys.doorbell)
            assert blocked_clients(queue) == 4 - awake
            queue.store().claim(1, held=0)
        assert not queue.client.exists(queue.keys.doorbell)
        assert blocked_clients(queue) == 1


def test_a_reaper_that_is_killed_at_work_leaves_the_rest_to_any_other(queue: LeaseQueue, redis_url: str) -> None:
    """A reaper killed while it holds its lock.

    Elsewhere: kombu restores under a lock of 300 seconds; whoever is killed while it holds it stops all redelivery
    for five minutes. Here: a go is one script, and there is no lock.
    """
    messages = [b"%04d" % number for number in range(BACKLOG)]
    queue.push(*messages)
    store = queue.store()
    while store.claim(64, held=0).messages:
        pass
    queue.expire()
    reaper = subprocess.Popen([sys.executable, "-c", REAPER, redis_url], cwd=ROOT)
    try:
        eventually(queue.waiting, what="it reaps")
    finally:
        os.kill(reaper.pid, signal.SIGKILL)
        reaper.wait()
    done = len(queue.waiting())
    assert 0 < done < BACKLOG
    reaped = 0
    while some := store.reap():
        reaped += len(some)
    assert reaped == BACKLOG - done
    assert queue.waiting() == messages


def test_a_worker_takes_what_it_can_run_and_no_more(queue: LeaseQueue) -> None:
    """A hoarding worker that starves the others.

    Elsewhere: a worker prefetches four times its slots, and jobs wait in its memory while others idle; when it hangs,
    they wait for its visibility timeout. Here: a claim is bounded by free slots, and who does not renew loses all.
    """
    queue.push(*(b"%02d" % number for number in range(10)))
    hoarder, other = queue.store("hoarder"), queue.store("other")
    hoard = hoarder.claim(4, held=0).messages
    assert len(hoard) == 4
    assert hoarder.claim(0, held=4).messages == ()
    assert len(other.claim(64, held=0).messages) == 6
    queue.expire(*tags(hoard))
    other.reap()
    assert sorted(raws(other.claim(64, held=6).messages)) == raws(hoard)


@pytest.mark.parametrize("way_back", ["reaped", "handed back", "due"])
def test_what_comes_back_stays_in_its_lane(queue: LeaseQueue, way_back: str) -> None:
    """Restored jobs that jump the queue.

    Elsewhere: a restored message goes to the most urgent list, or to the front of the only one, before interactive
    jobs that were there first. Here: it goes back to its own lane.
    """
    queue.push(b"batch job", priority=Priority.BATCH)
    store = queue.store()
    claimed = tags(store.claim(1, held=0).messages)
    queue.push(b"interactive job", priority=Priority.INTERACTIVE)
    if way_back == "reaped":
        queue.expire()
        store.reap()
    else:
        store.release(claimed, Release.HAND_BACK if way_back == "handed back" else Release.PARK)
    assert raws(store.claim(2, held=0).messages) == [b"interactive job", b"batch job"]


def test_retries_and_dead_holders_reserve_nothing(queue: LeaseQueue) -> None:
    """A reservation leaked on retry wedging a queue.

    Elsewhere: a counter of running jobs goes up with each attempt and down with each success; retries leak one each
    until the queue looks full. Here: nothing is counted but leases that exist. A job is retried a hundred times, the
    right to run suspects dies with its holder, and the next worker takes everything there is.
    """
    queue.push(b"suspect", b"again and again")
    store = queue.store()
    suspect, retried = tags(store.claim(2, held=0).messages)
    for _ in range(100):
        assert store.release([retried], Release.RETRY, reason="full") == 1
        queue.come_due()
        [retried] = tags(store.claim(1, held=0).messages)
    store.release([suspect], Release.SUSPECT, reason="died")
    assert queue.store("dead").claim(64, held=1).is_isolating
    store.release([retried], Release.HAND_BACK)
    queue.client.pexpire(queue.keys.isolation, 1)
    eventually(lambda: not queue.client.exists(queue.keys.isolation))
    last = queue.store("last")
    ends = []
    while claimed := last.claim(64, held=0).messages:
        ends += last.finish([end(message.tag, message.raw.decode()) for message in claimed])
    assert ends == [FinishStatus.STORED] * 2
    assert queue.leftovers() == []
    assert queue.client.llen(keys.lane(MODEL, Priority.NORMAL)) == 0
